r"""Exponential features for the fused kernels, and the peaks that shift their exponents.

Exponents are at most zero but for rounding, and are held there: what padding loads stays finite.
"""

from typing import no_type_check  # annotations speak to the compiler

import torch
import triton
import triton.language as tl
from torch import Tensor

from macformer.ops.fused import FusedMap, block_sizes, dense, on_their_device, slice_grid
from macformer.ops.fused_tiles import dot, keep_rows, load_rows, of_features, project
from macformer.ops.tiling import contiguous_rows

NUM_STAGES = 1  # loads ahead take registers, which a state over queries is short of


@triton.jit
@no_type_check
def _directions(omega, h, f, num_features, head_dim, stride, E: tl.constexpr):
    """Return the directions of features f: [E, features]."""
    e = tl.arange(0, E)
    mask = (e < head_dim)[:, None] & (f < num_features)[None, :]
    offsets = e[:, None] * num_features + f[None, :]
    return tl.load(omega + h * stride + offsets, mask=mask, other=0.0)


@triton.jit
@no_type_check
def _of_tokens(values, TRANSPOSED: tl.constexpr):
    """Return one value for each token in the shape that :func:`project` broadcasts with."""
    return values[None, :] if TRANSPOSED else values[:, None]


@triton.jit
@no_type_check
def _half_square(x):
    x = x.to(tl.float32)
    return 0.5 * tl.sum(x * x, axis=1)


@triton.jit
@no_type_check
def _queries(
    x, rows, parameters, bh, h, f0, head_dim,
    DEGREE: tl.constexpr, FULL: tl.constexpr,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """phi = exp(x @ omega + c - max_f (x @ omega + c))."""
    omega, peaks, maxima, num_features, num_rows, stride = parameters
    f = f0 + tl.arange(0, F)
    w = _directions(omega, h, f, num_features, head_dim, stride, E)
    peak = tl.load(peaks + bh * num_features + f, mask=f < num_features, other=0.0)
    maximum = tl.load(maxima + rows, mask=rows < num_rows, other=0.0)
    exponents = project(x, w, OPERAND, TRANSPOSED) + of_features(peak, TRANSPOSED)
    return tl.exp(tl.minimum(exponents - _of_tokens(maximum, TRANSPOSED), 0.0))


@triton.jit
@no_type_check
def _keys(
    x, rows, parameters, bh, h, f0, head_dim,
    DEGREE: tl.constexpr, FULL: tl.constexpr,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """phi = exp(x @ omega - |x|^2 / 2 - c)."""
    omega, peaks, num_features, stride = parameters
    f = f0 + tl.arange(0, F)
    w = _directions(omega, h, f, num_features, head_dim, stride, E)
    peak = tl.load(peaks + bh * num_features + f, mask=f < num_features, other=0.0)
    exponents = project(x, w, OPERAND, TRANSPOSED) - of_features(peak, TRANSPOSED)
    return tl.exp(tl.minimum(exponents - _of_tokens(_half_square(x), TRANSPOSED), 0.0))


@triton.jit
@no_type_check
def _pull_queries(
    dx, x, grad_phi, rows, parameters, bh, h, f0, head_dim,
    DEGREE: tl.constexpr, FULL: tl.constexpr,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Add the gradient at x: (grad_phi * phi) @ omega^T; return it with phi."""
    omega, _, _, num_features, _, stride = parameters
    phi = _queries(x, rows, parameters, bh, h, f0, head_dim, DEGREE, FULL, F, E, OPERAND, False)
    w = _directions(omega, h, f0 + tl.arange(0, F), num_features, head_dim, stride, E)
    return dx + dot(grad_phi * phi, tl.trans(w), OPERAND), phi


@triton.jit
@no_type_check
def _pull_keys(
    dx, x, grad_phi, rows, parameters, bh, h, f0, head_dim,
    DEGREE: tl.constexpr, FULL: tl.constexpr,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Add the gradient at x: (grad_phi * phi) @ (omega - x)^T, by features; return it with phi."""
    omega, _, num_features, stride = parameters
    phi = _keys(x, rows, parameters, bh, h, f0, head_dim, DEGREE, FULL, F, E, OPERAND, False)
    grad = grad_phi * phi
    w = _directions(omega, h, f0 + tl.arange(0, F), num_features, head_dim, stride, E)
    dx += dot(grad, tl.trans(w), OPERAND)
    return dx - tl.sum(grad, axis=1)[:, None] * x.to(tl.float32), phi


@triton.jit
@no_type_check
def peak_kernel(
    x, padding, omega, peaks,
    heads, length, head_dim, num_features, stride, per_split, x_b, x_h, x_n,
    OPERAND: tl.constexpr, HAS_PADDING: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """c = max_n x_n @ omega - |x_n|^2 / 2 over present rows: a program per (head, slice, group)."""
    bh, split, group = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    b, h = bh // heads, bh % heads
    f, e = group * F + tl.arange(0, F), tl.arange(0, E)
    x += b * x_b + h * x_h
    w = _directions(omega, h, f, num_features, head_dim, stride, E)
    peak = tl.full([F], float("-inf"), tl.float32)
    for n0 in range(split * per_split, min((split + 1) * per_split, length), N):
        n = n0 + tl.arange(0, N)
        keep = keep_rows(padding + b * length, n, length, HAS_PADDING)
        xn = load_rows(x, n, e, x_n, head_dim, keep)
        exponents = project(xn, w, OPERAND, True) - _half_square(xn)[None, :]
        peak = tl.maximum(peak, tl.max(tl.where(keep[None, :], exponents, float("-inf")), axis=1))
    row = bh * tl.num_programs(1) + split
    tl.store(peaks + row * num_features + f, peak, mask=f < num_features)


@triton.jit
@no_type_check
def maximum_kernel(
    x, omega, peaks, maxima,
    heads, length, head_dim, num_features, stride, x_b, x_h, x_n,
    OPERAND: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """m = max_f x @ omega + c: a program per (head, tile)."""
    bh = tl.program_id(0).to(tl.int64)
    b, h = bh // heads, bh % heads
    n, e = tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, E)
    xn = load_rows(x + b * x_b + h * x_h, n, e, x_n, head_dim, n < length)
    maximum = tl.full([N], float("-inf"), tl.float32)
    for f0 in range(0, num_features, F):
        f = f0 + tl.arange(0, F)
        w = _directions(omega, h, f, num_features, head_dim, stride, E)
        peak = tl.load(peaks + bh * num_features + f, mask=f < num_features, other=float("-inf"))
        maximum = tl.maximum(maximum, tl.max(project(xn, w, OPERAND, False) + peak[None, :], 1))
    tl.store(maxima + bh * length + n, maximum, mask=n < length)


@on_their_device
def find_peaks(key: Tensor, omega: Tensor, key_padding_mask: Tensor | None) -> Tensor:
    """Return the largest exponent of each feature over a head's present keys, 0 without any."""
    batch, heads, length, head_dim = key.shape
    omega, num_features, stride = _addressed(omega)
    padding, key = dense(key_padding_mask), contiguous_rows(key)
    grid, per_split, blocks = slice_grid("state", key, head_dim, num_features)
    peaks = key.new_empty(batch, heads, grid[1], num_features, dtype=torch.float32)
    peak_kernel[grid](
        key, key if padding is None else padding, omega, peaks,
        heads, length, head_dim, num_features, stride, per_split, *key.stride()[:3],
        HAS_PADDING=padding is not None, num_stages=NUM_STAGES, **blocks,
    )  # fmt: skip
    peaks = peaks.amax(2, keepdim=True)
    return peaks.masked_fill_(peaks == -torch.inf, 0)


@on_their_device
def exponentials(query: Tensor, omega: Tensor, peaks: Tensor) -> tuple[FusedMap, FusedMap]:
    """Return the maps of queries and of keys, without the factor 1 / sqrt(F)."""
    omega, num_features, stride = _addressed(omega)
    maxima = _find_maxima(query, omega, peaks, stride)
    shared = {"num_features": num_features, "weights": 1.0, "constant": 0.0}
    shared["num_stages"] = NUM_STAGES
    queries = omega, peaks, maxima, num_features, maxima.numel(), stride
    keys = omega, peaks, num_features, stride
    return (
        FusedMap(parameters=queries, features=_queries, pull=_pull_queries, **shared),
        FusedMap(parameters=keys, features=_keys, pull=_pull_keys, **shared),
    )


def _find_maxima(query: Tensor, omega: Tensor, peaks: Tensor, stride: int) -> Tensor:
    """Return the largest exponent of each query."""
    batch, heads, length, head_dim = query.shape
    query, blocks = contiguous_rows(query), block_sizes("read", query, head_dim)
    maxima = query.new_empty(batch, heads, length, dtype=torch.float32)
    maximum_kernel[batch * heads, triton.cdiv(length, blocks["N"])](
        query, omega, peaks, maxima,
        heads, length, head_dim, omega.shape[-1], stride, *query.stride()[:3],
        num_stages=NUM_STAGES, **blocks,
    )  # fmt: skip
    return maxima


def _addressed(omega: Tensor) -> tuple[Tensor, int, int]:
    """Return directions as the kernels address them: with their number and the step of a head."""
    omega = omega.contiguous()
    return omega, omega.shape[-1], 0 if len(omega) == 1 else omega.stride(0)
