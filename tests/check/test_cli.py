"""The command that checks a folder of variants, from its options to its verdict."""

import importlib.util
import re
from pathlib import Path

import pytest

from macformer.attention import NoAttention
from macformer.check import cli, contract, training
from macformer.check.outcomes import Outcome
from macformer.check.variants import find_own_variants
from macformer.runs.build import build_attention, build_data
from macformer.runs.config import compose
from macformer.runs.variants import OURS, find_variants

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "extending.md"
TINY = ("task.num_examples={train: 512, validation: 20, test: 40}", "task.max_len=40")


def write_examples(folder: Path) -> Path:
    """Write the files that the page prints, each named by its first line."""
    for code in re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        name = re.match(r"# (my_variants/\S+)\n", code)
        if name:
            path = folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
    return folder / "my_variants"


def test_the_task_of_the_page_gives_the_labels_that_it_describes(tmp_path, monkeypatch):
    folder = write_examples(tmp_path)
    monkeypatch.syspath_prepend(folder)
    counts = "{train: 40, validation: 20, test: 20}"
    options = (f"task.prepare.num_examples={counts}", f"paths.data_dir={tmp_path}", "batch_size=20")
    data = build_data(compose("task=again", "recipe=smoke", *options, config_dirs=[folder]))
    data.prepare_data()
    data.setup("test")
    (batch,) = data.test_dataloader()
    rows = batch["inputs"].tolist()
    assert {len(row) for row in rows} == {24} and 1 <= min(map(min, rows)) <= max(map(max, rows))
    assert batch["labels"].tolist() == [int(first in rest) for first, *rest in rows]
    assert set(batch["labels"].tolist()) == {0, 1}


@pytest.mark.slow
def test_the_examples_of_the_page_are_sound(tmp_path, capfd):
    folder = write_examples(tmp_path)
    steps = ("--steps", "40", "--out", str(tmp_path / "out"))
    assert cli.main([str(folder), *steps, *TINY]) == 0
    table = [line for line in capfd.readouterr().out.splitlines() if line.startswith("| ")]
    names = [line.split("|")[1].strip() for line in table[1:]]
    assert names == [
        "attention/elu",
        "attention/rmfa_cosh",
        "attention/squares",
        "mixer/convolution",
    ]
    assert all(line.split("|")[-2].strip() == "sound" for line in table[1:])
    assert len(list(tmp_path.glob("out/check/*/metrics.json"))) == 4


@pytest.fixture
def one_variant(tmp_path: Path) -> Path:
    (tmp_path / "mine" / "attention").mkdir(parents=True)
    path = tmp_path / "mine" / "attention" / "again.yaml"
    path.write_text("defaults: [softmax, _self_]\n")
    return tmp_path / "mine"


def test_a_variant_is_trained_and_its_verdict_printed(one_variant, tmp_path, monkeypatch, capfd):
    kept = Outcome("attention/again", "padding is inert")
    monkeypatch.setattr(contract, "hold_to_contract", lambda folder: [kept])
    out = tmp_path / "out"
    code = cli.main([str(one_variant), "--steps", "8", "--out", str(out), "batch_size=8", *TINY])
    printed = capfd.readouterr().out
    assert "| attention/again | 1/1" in printed and "in 8 steps" in printed
    assert code == 0, printed


def test_a_variant_in_a_folder_of_its_group_is_named_as_on_the_command_line(one_variant):
    """Bases, and what stands in a group of this project's, are no variants."""
    paths = "mine/elu", "mine/deep/er", "_base", "mine/_base", "_bases/elu", "sampler/mine"
    for path in paths:
        file = one_variant / "attention" / f"{path}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text("_target_: macformer.attention.NoAttention\n_partial_: true\n")
    found = find_own_variants(one_variant)
    assert [variant.name for variant in found] == ["again", "mine/deep/er", "mine/elu"]
    for variant in found[1:]:
        cfg = compose(f"attention={variant.name}", config_dirs=[variant.folder])
        attention = build_attention(cfg, num_heads=2, head_dim=4, max_seq_len=8)
        assert isinstance(attention, NoAttention)
    assert {v.name for v in find_variants(OURS, "attention")} >= {"softmax", "rmfa_exp"}
    assert not [v for v in find_variants(OURS, "attention") if "/" in v.name]


def test_one_variant_that_is_not_sound_decides_the_exit_code(one_variant, monkeypatch, capsys):
    (one_variant / "attention" / "other.yaml").write_text("defaults: [softmax, _self_]\n")
    outcomes = [
        Outcome("attention/again", "padding is inert", ["not close"]),
        Outcome("attention/other", "padding is inert"),
    ]
    monkeypatch.setattr(contract, "hold_to_contract", lambda folder: outcomes)
    learnt = training.Training(first_loss=2.3, last_loss=2.0, accuracy=0.3, majority=0.2)
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: learnt)
    assert cli.main([str(one_variant)]) == 1
    assert "attention/again: padding is inert: not close" in capsys.readouterr().out


def refused(capsys, *arguments) -> str:
    assert cli.main(list(map(str, arguments))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_folder_that_adds_nothing_is_refused(tmp_path, capsys):
    assert f"{tmp_path} has no attention/*.yaml and no mixer" in refused(capsys, tmp_path)


def test_a_variant_that_ours_would_hide_is_refused(one_variant, capsys):
    (one_variant / "attention" / "rfa.yaml").write_text("_target_: outside.Sound\n")
    assert "attention/rfa exist already" in refused(capsys, one_variant)


@pytest.mark.parametrize("option", ["--steps=0", "--seconds=-1"])
def test_a_limit_without_training_is_refused(one_variant, capsys, option):
    assert "above 0" in refused(capsys, one_variant, option)


def test_without_pytest_one_line_says_what_to_install(one_variant, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "pytest" else find(name))
    assert "extra check" in refused(capsys, one_variant)


@pytest.mark.slow
def test_a_time_limit_ends_a_training_that_is_scored_all_the_same(one_variant, tmp_path, capfd):
    (variant,) = find_own_variants(one_variant)
    seen = training.train(variant, out=tmp_path, steps=None, seconds=1e-3, options=TINY)
    assert seen.steps == 1 and seen.failure is None and 0 <= seen.accuracy <= 1
    assert "step 1/200" in capfd.readouterr().err
