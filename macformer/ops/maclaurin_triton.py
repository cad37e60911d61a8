"""Maclaurin features for the fused kernels."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, no_type_check  # annotations speak to the compiler

import torch
import triton
import triton.language as tl
from torch import Tensor

from macformer.ops.fused import FusedMap
from macformer.ops.fused_tiles import dot, of_features, project

# Levels of a feature that registers hold together; products of float32 leave them no room.
MAX_UNROLLED = {tl.bfloat16: 4, tl.float32: 0}


@triton.jit
@no_type_check
def _signs(parameters, h, j, f, head_dim, E: tl.constexpr):
    """Return the sign columns of level j, zeros for features without it, and its width."""
    signs, table, num_levels, columns, stride = parameters
    start, width = tl.load(table + j), tl.load(table + num_levels + j)
    e = tl.arange(0, E)
    offsets = e[:, None] * columns + f[None, :]
    mask = (e < head_dim)[:, None] & (f < width)[None, :]
    return tl.load(signs + h * stride + start + offsets, mask=mask, other=0.0), width


@triton.jit
@no_type_check
def _level(
    x, parameters, h, j, f, head_dim, FULL: tl.constexpr,
    E: tl.constexpr, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """Return x @ signs_j, ones for features without level j where it is not FULL."""
    w, width = _signs(parameters, h, j, f, head_dim, E)
    projections = project(x, w, OPERAND, TRANSPOSED)
    if not FULL:
        projections = tl.where(of_features(f < width, TRANSPOSED), projections, 1.0)
    return projections


@triton.jit
@no_type_check
def _degree(parameters, f0):
    """Return the degree of feature f0, the highest of its group."""
    _, table, num_levels, _, _ = parameters
    degree = 0
    for j in range(num_levels):
        degree += (tl.load(table + num_levels + j) > f0).to(tl.int32)
    return degree


@triton.jit
@no_type_check
def _products(
    x, rows, parameters, bh, h, f0, head_dim,
    DEGREE: tl.constexpr, FULL: tl.constexpr,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """phi = prod_j (x @ signs_j)."""
    f = f0 + tl.arange(0, F)
    phi = _level(x, parameters, h, 0, f, head_dim, FULL > 0, E, OPERAND, TRANSPOSED)
    for j in tl.static_range(1, DEGREE):
        phi *= _level(x, parameters, h, j, f, head_dim, j < FULL, E, OPERAND, TRANSPOSED)
    if DEGREE == 0:
        for j in range(1, _degree(parameters, f0)):
            phi *= _level(x, parameters, h, j, f, head_dim, False, E, OPERAND, TRANSPOSED)
    return phi


@triton.jit
@no_type_check
def _pull(
    dx, x, grad_phi, rows, parameters, bh, h, f0, head_dim,
    DEGREE: tl.constexpr, FULL: tl.constexpr,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Add the gradient at x, and return it with phi.

    Level j receives the gradient at phi times the product of the other levels.
    """
    f = f0 + tl.arange(0, F)
    if DEGREE == 0:
        phi = _products(x, rows, parameters, bh, h, f0, head_dim, 0, 0, F, E, OPERAND, False)
        dx = _pull_loop(dx, x, grad_phi, parameters, h, f0, head_dim, F, E, OPERAND)
    else:
        levels = ()
        for j in tl.static_range(DEGREE):
            level = _level(x, parameters, h, j, f, head_dim, j < FULL, E, OPERAND, False)
            levels = levels + (level,)  # noqa: RUF005 (the compiler adds tuples)
        befores = (levels[0],)  # each with the product of those before it
        for j in tl.static_range(1, DEGREE):
            befores = befores + (befores[j - 1] * levels[j],)  # noqa: RUF005
        phi = befores[DEGREE - 1]
        for back in tl.static_range(1, DEGREE):
            w, _ = _signs(parameters, h, DEGREE - back, f, head_dim, E)
            dx += dot(grad_phi * befores[DEGREE - back - 1], tl.trans(w), OPERAND)
            grad_phi *= levels[DEGREE - back]
        w, _ = _signs(parameters, h, 0, f, head_dim, E)
        dx += dot(grad_phi, tl.trans(w), OPERAND)
    return dx, phi


@triton.jit
@no_type_check
def _pull_loop(
    dx, x, grad_phi, parameters, h, f0, head_dim,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Do so for any degree: the product before j, computed again for each j, keeps no level."""
    f = f0 + tl.arange(0, F)
    degree = _degree(parameters, f0)
    for back in range(degree):
        j = degree - 1 - back
        grad_level = grad_phi
        for i in range(j):
            grad_level *= _level(x, parameters, h, i, f, head_dim, False, E, OPERAND, False)
        w, _ = _signs(parameters, h, j, f, head_dim, E)
        dx += dot(grad_level, tl.trans(w), OPERAND)
        grad_phi *= _level(x, parameters, h, j, f, head_dim, False, E, OPERAND, False)
    return dx


def products(signs: Tensor, widths: Sequence[int], weights: Tensor, constant: Tensor) -> FusedMap:
    """Return products of projections; level j multiplies the first widths[j] features."""
    signs = signs.contiguous()
    stride = 0 if signs.shape[0] == 1 else signs.stride(0)
    widths = tuple(widths)
    table = _table(widths, signs.device)
    return FusedMap(
        num_features=widths[0],
        weights=weights,
        constant=constant,
        parameters=(signs, table, len(widths), signs.shape[-1], stride),
        features=_products,
        pull=_pull,
        num_stages=1,
        runs=lambda blocks: _runs(widths, blocks["F"], _most_unrolled(blocks)),
    )


def _most_unrolled(blocks: dict[str, Any]) -> int:
    """Return the highest degree to unroll: none in wide heads, whose rows take the registers."""
    return MAX_UNROLLED[blocks["OPERAND"]] if max(blocks["E"], blocks["V"]) <= 64 else 0


@lru_cache
def _runs(widths: tuple[int, ...], size: int, most: int) -> tuple[tuple[int, ...], ...]:
    """Cut groups of ``size`` features into runs of one degree, that of a group being its highest.

    Returns:
        For each run its first group and the one after its last; its degree, 0 where that is more
        than ``most``; and how many levels all features of these groups have.
    """

    def make(group: int) -> tuple[int, int]:
        last = min((group + 1) * size, widths[0]) - 1
        degree = sum(width > group * size for width in widths)
        full = sum(width > last for width in widths)
        return (degree, full) if degree <= most else (0, 0)

    groups = groupby(range(triton.cdiv(widths[0], size)), make)
    spans = [(kind, list(members)) for kind, members in groups]
    return tuple((span[0], span[-1] + 1, *kind) for kind, span in spans)


@lru_cache
def _table(widths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where each level's columns start, and its width, on the device once and for all."""
    starts = [sum(widths[:j]) for j in range(len(widths))]
    return torch.tensor([*starts, *widths], dtype=torch.int32, device=device)
