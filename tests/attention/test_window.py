"""Attention held to a window, against the attention inside on each query's own keys."""

from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from torch.testing import assert_close

from macformer.attention import (
    PPSBN,
    AllKeys,
    EluMap,
    Informer,
    LinearAttention,
    Longformer,
    Nystromformer,
    PreSBN,
    Skyformer,
    SoftmaxAttention,
    Window,
)
from macformer.attention.contract import has_joint_queries
from macformer.runs.build import build_attention
from macformer.runs.config import compose
from macformer.runs.variants import OURS, find_variants

B, H, N, E, EV = 2, 3, 11, 5, 7
softmax = partial(SoftmaxAttention, dropout=0.0)
linear = partial(LinearAttention, feature_map=EluMap)
SMALL = {
    "block_size": 4,
    "num_last": 1,
    "chunk_size": 3,
    "num_landmarks": 8,
    "num_queries": 3,
    "num_slots": 4,
}
informer = partial(Informer, num_queries=3, measure=AllKeys)
nystrom = partial(Nystromformer, num_landmarks=4, num_steps=6, conv_kernel=None)
skyformer = partial(Skyformer, num_landmarks=4, ridge=0.1, num_steps=6, pool_size=1, redraw=False)


@pytest.fixture(scope="module")
def rmfa():
    return instantiate(compose("attention=rmfa_exp").attention)


def build(attention, window: int) -> Window:
    torch.manual_seed(0)
    shapes = {"num_heads": H, "head_dim": E}
    return Window(**shapes, attention=attention, window=window).double().eval()


def draw(length: int = N):
    sizes = (E, E, EV)
    return [torch.randn(B, H, length, size, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize(
    ("name", "length", "window"),
    [
        *((name, N, window) for name in ("softmax", "linear", "rmfa") for window in (1, 2, 3, 8)),
        *(("rmfa", length, window) for length in (64, 65, 150) for window in (5, 100)),
    ],
)
def test_a_query_sees_the_keys_of_its_window(name, length, window, rmfa):
    module = build({"softmax": softmax, "linear": linear, "rmfa": rmfa}[name], window)
    query, key, value = draw(length)
    right = window // 2
    left = window - right - 1
    expected = []
    for i in range(length):
        seen = slice(max(i - left, 0), i + right + 1)
        expected.append(
            module.attention(query[:, :, i : i + 1], key[:, :, seen], value[:, :, seen])
        )
    assert_close(module(query, key, value), torch.cat(expected, 2))


@pytest.mark.parametrize("window", [2, 3, 6])
def test_of_softmax_it_is_longformer(window):
    longformer = Longformer(num_heads=H, head_dim=E, window=window, num_global=0)
    tensors = draw()
    mask = torch.arange(N) >= torch.tensor([[N], [7]])
    found = build(softmax, window)(*tensors, key_padding_mask=mask)
    expected = longformer(*tensors, key_padding_mask=mask)
    assert_close(found[0], expected[0])
    assert_close(found[1, :, :7], expected[1, :, :7])


def test_a_window_over_everything_changes_nothing(rmfa):
    module = build(rmfa, 2 * N)
    tensors = draw()
    assert_close(module(*tensors), module.attention(*tensors))


def test_a_token_alone_is_its_value():
    query, key, value = draw()
    assert_close(build(softmax, 1)(query, key, value), value)


@pytest.mark.parametrize("length", [N, 3 * N])
def test_features_in_a_band_are_examples_by_themselves(length, rmfa, monkeypatch):
    """With more queries than keys, too, of which the last see nothing."""
    module = build(rmfa, 4)
    query, (_, key, value) = draw(length)[0], draw()
    mask = torch.arange(N) >= torch.tensor([[N], [7]])
    found = module(query, key, value, key_padding_mask=mask)
    monkeypatch.delattr(type(module.attention), "map_features")
    assert_close(found, module(query, key, value, key_padding_mask=mask))


@pytest.mark.parametrize("name", ["softmax", "rmfa"])
def test_padding_is_as_if_cut_off(name, rmfa):
    """Forward and backward, whatever stands there."""
    module = build({"softmax": softmax, "rmfa": rmfa}[name], 4)
    short = [x.requires_grad_() for x in draw(7)]
    padded = []
    for x in short:
        rest = torch.full((B, H, 4, x.shape[-1]), torch.nan, dtype=x.dtype)
        padded.append(torch.cat([x.detach(), rest], 2).requires_grad_())
    mask = (torch.arange(N) >= 7).expand(B, -1)
    out, expected = module(*padded, key_padding_mask=mask)[:, :, :7], module(*short)
    assert_close(out, expected)
    for found, wanted in zip(
        torch.autograd.grad(out.square().sum(), padded),
        torch.autograd.grad(expected.square().sum(), short),
        strict=True,
    ):
        assert_close(found[:, :, :7], wanted)
        assert not found[:, :, 7:].any()


@pytest.mark.parametrize(
    ("attention", "window", "message"),
    [
        (softmax, 0, "window is 0; it must be at least 1"),
        (partial(Longformer, window=3, num_global=0), 3, "Longformer needs the whole sequence"),
        (informer, 3, "what Informer makes of a query depends on the others"),
        (nystrom, 3, "what Nystromformer makes of a query depends on the others"),
        (skyformer, 3, "what Skyformer makes of a query depends on the others"),
        (partial(PPSBN, attention=informer, pre=PreSBN, post=None), 3, "what PPSBN makes of"),
    ],
)
def test_what_cannot_be_held_to_a_window_is_refused(attention, window, message):
    with pytest.raises(ValueError, match=message):
        build(attention, window)


@pytest.mark.parametrize(
    "name", sorted(variant.name for variant in find_variants(OURS, "attention"))
)
def test_only_a_row_that_says_so_lets_queries_change_one_another(name):
    """Half of the queries move, and none of the outputs of the others."""
    cfg = compose(f"attention={name}")
    small = {key: size for key, size in SMALL.items() if key in cfg.attention}
    cfg.attention.update(small)
    torch.manual_seed(0)
    module = build_attention(cfg, num_heads=H, head_dim=8, max_seq_len=17).double().eval()
    query, key, value = torch.randn(3, B, H, 17, 8, dtype=torch.float64)
    moved = query.clone()
    moved[:, :, ::2] = torch.randn(B, H, 9, 8, dtype=torch.float64)
    change = (module(moved, key, value) - module(query, key, value))[:, :, 1::2].abs().max()
    assert (change > 1e-9) == has_joint_queries(module)
