"""The contract of every attention: its tensors, its size, and which rows there are."""

import copy

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from macformer.runs.build import build_attention, build_model


def test_every_row_is_found(rows, told):
    folder = told.ours / "attention"
    files = {path.stem for path in folder.iterdir() if path.suffix == ".yaml"}
    found = {row.name for row in rows if row.folder == told.ours}
    assert found == {name for name in files if not name.startswith("_")} == told.rows


def test_what_is_told_is_told_of_rows(told):
    assert {*told.small, *told.larger, *told.wrapped} <= told.rows


@pytest.mark.filterwarnings("default:.*in SMALL:UserWarning")
def test_no_size_hides_what_a_row_does(subject, told):
    """Blocks, landmarks or windows above the lengths here make most rows plain softmax."""
    cfg = OmegaConf.to_container(subject.cfg.attention, resolve=True)
    larger = {key for key, size in numbers(cfg) if size >= 11 and key not in told.no_lengths}
    missing = larger - set(told.small.get(subject.case.name, {}))
    if missing:
        subject.report(f"{subject.case.name} needs small values of {sorted(missing)} in SMALL")


def numbers(node) -> list[tuple[str, int]]:
    """Return all whole numbers in a configuration, with their keys."""
    if not isinstance(node, dict):
        return []
    here = [(k, v) for k, v in node.items() if isinstance(v, int) and not isinstance(v, bool)]
    return here + [pair for child in node.values() for pair in numbers(child)]


def tensors_of(module: nn.Module) -> set[int]:
    """Return the addresses of all tensors, registered or not."""
    registered = [*module.parameters(), *module.buffers()]
    plain = [v for m in module.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    return {t.data_ptr() for t in registered + plain if t.numel()}


def test_two_layers_share_no_tensor(subject):
    assert not tensors_of(subject.attention) & tensors_of(subject.other)


def test_a_checkpoint_reproduces_the_output(subject):
    """In training, too: where a module is in its draws belongs to its state."""
    saved, other = (copy.deepcopy(x) for x in (subject.attention, subject.other))
    inputs = subject.draw(13)
    for _ in range(3):
        saved.train()(*inputs)
    other.load_state_dict(saved.state_dict())
    for training in (False, True):
        outs = []
        for module in (saved, other):
            torch.manual_seed(2)
            outs.append(module.train(training)(*inputs))
        assert torch.equal(*outs)


@pytest.mark.filterwarnings("default:.*whatever the seed:UserWarning")
def test_the_seed_decides_the_features(subject):
    again, inputs = subject.build(0), subject.draw(13)
    assert torch.equal(again(*inputs), subject.attention(*inputs))
    mine, other = again.state_dict(), subject.other.state_dict()
    learnt = {name for name, _ in again.named_parameters()}
    tables = [  # what is not random has no place in a checkpoint
        (mine[name], other[name])
        for name in mine.keys() - learnt
        if mine[name].is_floating_point() and len(mine[name].unique()) > 1
    ]
    if tables and all(torch.equal(x, y) for x, y in tables):
        subject.report(f"the buffers of {subject.case.name} are the same whatever the seed")


@pytest.mark.filterwarnings("default:.*more parameters:UserWarning")
def test_the_classifier_is_about_as_large_as_with_softmax(subject, size_with_softmax, told):
    """At the sizes of recipe=skyformer; Tay et al. 2021 compare models of one size, within 10 %."""
    size = subject.cfg.protocol
    attention = build_attention(
        subject.cfg,
        num_heads=size.num_heads,
        head_dim=size.qkv_dim // size.num_heads,
        max_seq_len=subject.cfg.padded_len,
    )
    excess = 100 * size.num_layers * num_parameters(attention) / size_with_softmax
    if subject.case.name in told.larger:
        assert excess > 10
    elif excess > 10:
        subject.report(f"{subject.case.name} has {excess:.0f} % more parameters than softmax")


@pytest.fixture(scope="session")
def size_with_softmax(buildable) -> int:
    """Count the parameters of the classifier, to which attention itself adds none."""
    cfg = buildable("attention=softmax", "ppsbn=without")
    assert cfg.recipe.name == "skyformer"
    return num_parameters(build_model(cfg))


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
