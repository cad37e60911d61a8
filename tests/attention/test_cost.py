"""Operations and state of every row, against formulas written down for each by hand."""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from math import ceil, isqrt, log
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from macformer.attention.contract import state_size
from macformer.measuring import count_flops
from macformer.models import S4D
from macformer.runs.build import build_attention
from macformer.runs.config import compose
from macformer.runs.variants import OURS, find_variants

H, N, E, EV = 2, 22, 7, 7  # heads, tokens, width of keys and of values
KEYS_AND_VALUES = N * (E + EV)


def attend(queries: int, keys: int, key_dim: int = E, value_dim: int = EV) -> int:
    """Count the two products of queries with keys and of weights with values."""
    return 2 * queries * keys * (key_dim + value_dim)


def fused(num_features: int, columns: int) -> int:
    """Count what tiles multiply: projections of queries and of keys, if any, and their features.

    Those of keys are multiplied with values and a column of ones, and the sums with queries.
    """
    return 2 * N * (2 * E * columns + 2 * num_features * (EV + 1))


def solve(m: int, steps: int) -> int:
    """Count four products of m x m matrices a step, but seven with the values at the end."""
    return (steps - 1) * 4 * 2 * m**3 + 7 * 2 * m**2 * EV


def nystrom(m: int, steps: int) -> int:
    return attend(m, N) + 2 * m * m * E + solve(m, steps) + attend(N, m)


def skyformer(m: int, steps: int) -> int:
    return attend(m, N) + 2 * m * m * E + solve(m, steps) + attend(N, m)


def rmfa(row: nn.Module) -> int:
    """Count the products of each degree, and the part of degree 1 that is exact."""
    exact: int = E if row.linear else 0
    return fused(row.features.widths[0] + exact, sum(row.features.widths) + exact)


def h_transformer(block: int) -> int:
    """Count a tile of 32 at each level, with a block of keys on either side and a column more."""
    levels = 4  # 22 tokens are 11 blocks of 2; levels until one block has one neighbour
    return levels * attend(32, block + 32 + block, E + 1, EV + 1)


def informer(measure: Callable[[int], int]) -> int:
    """Of 3 queries of the longest sequence c is ceil(3 / ln 22) = 1, so that ceil(ln 22) attend."""
    chosen = ceil(log(N))
    return measure(chosen) + attend(chosen, N)


def sparse(block: int, first: int, last: int) -> int:
    """Count summary columns up to a multiple of 16, whole blocks, and what is left of the row."""
    whole, rest = divmod(N, block)
    columns = whole * (first + last) + min(rest, first) + max(rest - (block - last), 0)
    columns = ceil((columns + 1) / 16) * 16
    return attend(N, columns) + whole * attend(block, block) + attend(rest, rest)


def sparse_strided(block: int) -> int:
    """Count one run of the window's queries over all keys, and the columns; in whole blocks."""
    rows = ceil(N / block)
    return attend(rows * block, rows * block) + block * attend(rows, rows)


def synthesizer_dense() -> int:
    width = isqrt(N - 1) + 1
    return 2 * N * E * (width + ceil(N / width)) + 2 * N * N * EV


class Row(NamedTuple):
    """What one head costs; operations and state are numbers, or functions of the module.

    Attributes:
        sizes: Keys of the row's YAML, small enough for N tokens.
    """

    flops: Any
    state: Any = KEYS_AND_VALUES
    sizes: Mapping[str, Any] = MappingProxyType({})


KERNELIZED = Row(attend(N, N))
MACLAURIN = Row(rmfa, lambda row: (row.features.widths[0] + E * bool(row.linear) + 1) * (EV + 1))
QUADRATIC = E * (E + 1) // 2 + E  # products of two entries, and entries

ROWS = {
    # two ends; three neighbours and a random block of 2; everything for the first and the last
    "bigbird": Row(
        attend(N, 2 * 2) + 11 * attend(2, 4 * 2) + 2 * attend(2, N),
        sizes={"block_size": 2, "num_random": 1},
    ),
    "cosformer": Row(fused(2 * E, 0), 2 * E * (EV + 1)),
    "gaussian": Row(attend(N, N)),
    "h_transformer": Row(h_transformer(2), sizes={"block_size": 2}),
    "hedgehog": Row(fused(2 * E, E), 2 * E * (EV + 1)),
    "informer": Row(informer(lambda u: 2 * N * N * E + 2 * N * E), sizes={"num_queries": 3}),
    "informer_sampled": Row(informer(lambda u: 2 * N * u * E), sizes={"num_queries": 3}),
    "kernelized_exp": KERNELIZED,
    "kernelized_exp_scaled": KERNELIZED,
    "kernelized_inv": KERNELIZED,
    "kernelized_log": KERNELIZED,
    "kernelized_sqrt": KERNELIZED,
    "kernelized_trigh": KERNELIZED,
    "linear": Row(fused(E, 0), E * (EV + 1)),
    "linformer": Row(2 * 2 * 4 * N * E + attend(N, 4), 4 * (E + EV), {"num_slots": 4}),
    "linformer_learnt": Row(2 * 2 * 4 * N * E + attend(N, 4), 4 * (E + EV), {"num_slots": 4}),
    "linformer_means": Row(attend(N, 4), 4 * (E + EV), {"num_slots": 4}),
    "local": Row(8 * attend(3, 3), sizes={"block_size": 3}),
    # two pools, then windows of 3 with one token on either side
    "long_short": Row(
        2 * attend(2, N) + 8 * attend(3, 2 + 5), sizes={"window": 3, "num_pooled": 2}
    ),
    # one run of queries, which is longer than the row
    "longformer": Row(attend(N, N), sizes={"window": 4}),
    "none": Row(0, 0),
    "nystrom": Row(nystrom(4, 6), 4 * (E + EV), {"num_landmarks": 4}),
    "nystrom_conv": Row(
        nystrom(4, 6) + 2 * N * 3 * EV,
        4 * (E + EV) + N * EV,
        {"num_landmarks": 4, "conv_kernel": 3},
    ),
    "performer": Row(fused(128, 128), 128 * (EV + 2)),
    "performer_relu": Row(fused(E, 0), E * (EV + 1)),
    # two rounds over 24 tokens, in chunks that see the one before, too
    "reformer": Row(
        2 * (2 * 24 * E * 2) + 2 * 8 * attend(3, 6), sizes={"chunk_size": 3, "num_buckets": 4}
    ),
    "rfa": Row(fused(128, 64), 128 * (EV + 1)),
    "rfa_arccos": Row(fused(128, 128), 128 * (EV + 1)),
    "rmfa_exp": MACLAURIN,
    "rmfa_exp_scaled": MACLAURIN,
    "rmfa_inv": MACLAURIN,
    "rmfa_log": MACLAURIN,
    "rmfa_sqrt": MACLAURIN,
    "rmfa_trigh": MACLAURIN,
    # 8 blocks are scored, and keys and values mixed
    "sinkhorn": Row(
        2 * 8 * E * 8 + 2 * (2 * 8 * 8 * 3 * E) + 8 * attend(3, 6), sizes={"block_size": 3}
    ),
    "skyformer": Row(skyformer(6, 6), 6 * (E + EV), {"num_landmarks": 6}),
    "softmax": Row(attend(N, N)),
    "sparse": Row(sparse(4, 1, 1), sizes={"block_size": 4, "num_last": 1}),
    "sparse_strided": Row(sparse_strided(3), sizes={"block_size": 3}),
    "synthesizer_dense": Row(synthesizer_dense(), N * EV),
    # values are filled up to the width of the factors
    "synthesizer_random": Row(2 * N * N * (8 + 8), N * EV),
    "taylor": Row(fused(QUADRATIC, 0), (QUADRATIC + 1) * (EV + 1)),
    "uniform": Row(0, EV),
}


@pytest.fixture(scope="module")
def build() -> Callable[..., nn.Module]:
    @cache
    def build(name: str, *options: str) -> nn.Module:
        cfg = compose(f"attention={name}", *options)
        cfg.attention.update(ROWS[name].sizes)
        torch.manual_seed(0)
        return build_attention(cfg, num_heads=H, head_dim=E, max_seq_len=N).eval()

    return build


def test_every_row_has_a_count_by_hand():
    assert set(ROWS) == {variant.name for variant in find_variants(OURS, "attention")}


@pytest.mark.parametrize("name", ROWS)
def test_operations_and_state_are_those_counted_by_hand(name, build):
    row, by_hand = build(name), ROWS[name]
    query, key, value = torch.randn(3, 2, H, N, E)
    padding = torch.arange(N).expand(2, -1) >= torch.tensor([[N], [N - 5]])
    with torch.no_grad():
        flops = count_flops(lambda: row(query, key, value, key_padding_mask=padding))
    expected, state = (x(row) if callable(x) else x for x in (by_hand.flops, by_hand.state))
    assert flops == 2 * H * expected
    assert state_size(row, seq_len=N, head_dim=E, value_dim=EV) == state


@pytest.mark.parametrize("name", ROWS)
def test_a_pass_runs_nothing_of_hydra(name, build):
    """What Hydra makes to be called later checks its target anew at every call."""
    row, files = build(name), set()
    row(*torch.randn(3, 2, H, N, E))
    sys.setprofile(lambda frame, *_: files.add(frame.f_code.co_filename))
    try:
        row(*torch.randn(3, 2, H, N, E))
    finally:
        sys.setprofile(None)
    assert any("macformer" in file for file in files)
    assert [file for file in files if "/hydra/" in file] == []


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("cosformer", "pointwise._attend_cosine"),
        ("linear", "pointwise._attend_elu"),
        ("performer", "exponential._attend"),
        ("performer_relu", "pointwise._attend_relu"),
        ("rfa", "fourier._attend"),
        ("rfa_arccos", "arccos._attend"),
        ("rmfa_exp", "maclaurin._attend"),
        ("taylor", "taylor._attend"),
    ],
)
def test_the_state_is_that_of_the_operator(name, operator, build, monkeypatch):
    """An operator returns its state, but for the sums of the kernel's constant part."""
    row = build(name)
    found = []
    module, function = operator.split(".")
    module = import_module(f"macformer.ops.{module}")
    attend_and_keep = getattr(module, function)

    def keep(*inputs):
        results = attend_and_keep(*inputs)
        found.append(results[2][0, 0].numel())
        return results

    monkeypatch.setattr(module, function, keep)
    row(*torch.randn(3, 1, H, N, E))
    constant = EV + 1 if name in ("rmfa_exp", "taylor") else 0
    assert [state_size(row, seq_len=N, head_dim=E, value_dim=EV)] == [found[0] + constant]


@pytest.mark.parametrize("option", ["ppsbn=with", "ppsbn=with_batch", "rotary=with"])
def test_wrappers_keep_what_is_inside(option):
    cfg = compose("attention=uniform", option)
    row = build_attention(cfg, num_heads=H, head_dim=8, max_seq_len=N)
    assert state_size(row, seq_len=N, head_dim=8, value_dim=8) == 8


def test_backward_transforms_count_as_complex_ones():
    """Forwards 5/2 n log2 n, and backwards 5 n log2 n, since torch pads with zeros."""
    x = torch.randn(3, 16, requires_grad=True)
    transformed = torch.fft.rfft(x)
    forward = count_flops(lambda: torch.fft.rfft(x))
    backward = count_flops(lambda: transformed.abs().sum().backward())
    assert (forward, backward) == (3 * 2.5 * 16 * 4, 3 * 5 * 16 * 4)


def test_transforms_count_by_their_law():
    """Of 16 numbers 5/2 n log2 n each: 4 channels, the circle of their kernels, the way back."""
    mixer = S4D(embed_dim=4, state_dim=2, min_step=0.1, max_step=0.1)
    x = torch.randn(1, 8, 4)
    with torch.no_grad():
        whole, kernels = (count_flops(run) for run in (lambda: mixer(x), lambda: mixer.kernels(8)))
    projection = 2 * 8 * 4 * 8
    assert whole - kernels - projection == 3 * 4 * 2.5 * 16 * 4
    assert mixer.state_size(8) == 2 * 4 * 2  # real and imaginary parts in both directions
