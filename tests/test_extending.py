"""The files that the page on own variants shows are what it says."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from macformer.check.variants import find_own_variants
from macformer.runs.build import build_attention, build_model
from macformer.runs.config import compose
from tasks.errors import DataError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pages" / "extending.md"
FILE = re.compile(r"^```(?:python|yaml)\n# my_variants/(\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
B, H, L, S, E = 2, 3, 11, 13, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("my_variants")
    for name, text in FILE.findall(PAGE.read_text()):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_every_variant_is_built_and_answers(folder):
    variants = find_own_variants(folder)
    assert {f"{variant.group}/{variant.name}" for variant in variants} == {
        "attention/elu",
        "attention/rmfa_cosh",
        "attention/squares",
        "mixer/convolution",
    }
    mask = torch.arange(S) >= torch.tensor([S, 7])[:, None]
    inputs = torch.randint(1, 10, (2, S)).masked_fill(mask, 0)
    for variant in variants:
        option = f"{variant.group}={variant.name}"
        cfg = compose("task=listops_short", "recipe=smoke", option, config_dirs=[folder])
        logits = build_model(cfg)(inputs, key_padding_mask=mask)
        assert logits.shape == (2, 10) and logits.isfinite().all(), option


def test_features_that_are_never_stored_give_what_stored_ones_do(folder):
    cfg = compose("task=listops_short", "attention=squares", config_dirs=[folder])
    tiled = build_attention(cfg, num_heads=H, head_dim=E, max_seq_len=S).double()
    stored = build_attention(cfg, num_heads=H, head_dim=E, max_seq_len=S).double()
    stored.map_query.attend = None
    inputs = [torch.randn(B, H, n, E, dtype=torch.float64, requires_grad=True) for n in (L, S, S)]
    mask = torch.arange(S) >= torch.tensor([S, 7])[:, None]
    results = []
    for attention in (tiled, stored):
        out = attention(*inputs, key_padding_mask=mask)
        results.append([out, *torch.autograd.grad(out.sin().sum(), inputs)])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.fixture
def again(folder, monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("again")


def test_the_task_is_prepared_as_it_is_labelled(again, tmp_path):
    sizes = {"train": 30, "validation": 10, "test": 10}
    place = again.prepare(tmp_path, num_examples=sizes, seed=0, max_len=6, num_symbols=9)
    rows = again.load(place, "train", vocab_size=10)
    symbols = rows.ids.reshape(sizes["train"], 6)
    assert rows.labels.tolist() == [int(row[0] in row[1:]) for row in symbols.tolist()]
    assert set(rows.labels.tolist()) == {0, 1}


def test_a_task_without_all_splits_is_refused_by_their_names(again, tmp_path):
    with pytest.raises(DataError, match="no split validation or test"):
        again.prepare(tmp_path, num_examples={"train": 30}, seed=0, max_len=6, num_symbols=9)
    assert not list((tmp_path / "again").glob("generate-*"))
