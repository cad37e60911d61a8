"""Maclaurin features for the fused kernels."""

from collections.abc import Sequence
from functools import lru_cache
from typing import no_type_check  # annotations speak to the compiler

import torch
import triton
import triton.language as tl
from torch import Tensor

from macformer.ops.fused import FusedMap
from macformer.ops.fused_kernels import dot, of_features, project


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
    x, parameters, h, j, f, head_dim,
    E: tl.constexpr, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """Return x @ signs_j, ones for features without level j."""
    w, width = _signs(parameters, h, j, f, head_dim, E)
    projections = project(x, w, OPERAND, TRANSPOSED)
    return tl.where(of_features(f < width, TRANSPOSED), projections, 1.0)


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
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """phi = prod_j (x @ signs_j)."""
    f = f0 + tl.arange(0, F)
    phi = tl.full([F, x.shape[0]] if TRANSPOSED else [x.shape[0], F], 1.0, tl.float32)
    for j in range(_degree(parameters, f0)):
        phi *= _level(x, parameters, h, j, f, head_dim, E, OPERAND, TRANSPOSED)
    return phi


@triton.jit
@no_type_check
def _pull(
    dx, x, grad_phi, rows, parameters, bh, h, f0, head_dim,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Add the gradient at x: level j receives that of phi times the product of the other levels.

    The product before j is computed again for each j, which keeps no level in registers.
    """
    f = f0 + tl.arange(0, F)
    degree = _degree(parameters, f0)
    for back in range(degree):
        j = degree - 1 - back
        grad_level = grad_phi
        for i in range(j):
            grad_level *= _level(x, parameters, h, i, f, head_dim, E, OPERAND, False)
        w, _ = _signs(parameters, h, j, f, head_dim, E)
        dx += dot(grad_level, tl.trans(w), OPERAND)
        grad_phi *= _level(x, parameters, h, j, f, head_dim, E, OPERAND, False)
    return dx


def products(signs: Tensor, widths: Sequence[int], weights: Tensor, constant: Tensor) -> FusedMap:
    """Return products of projections; level j multiplies the first widths[j] features."""
    signs = signs.contiguous()
    stride = 0 if signs.shape[0] == 1 else signs.stride(0)
    table = _table(tuple(widths), signs.device)
    return FusedMap(
        num_features=widths[0],
        weights=weights,
        constant=constant,
        parameters=(signs, table, len(widths), signs.shape[-1], stride),
        features=_products,
        pull=_pull,
        num_stages=1,  # loads ahead of a loop of levels take registers for twice as many warps
    )


@lru_cache
def _table(widths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where each level's columns start, and its width, on the device once and for all."""
    starts = [sum(widths[:j]) for j in range(len(widths))]
    return torch.tensor([*starts, *widths], dtype=torch.int32, device=device)
