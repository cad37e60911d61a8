"""Launchers of the Triton kernels of Maclaurin attention.

Programs of 32 features each sum the state over a slice of the sequence; the other kernels read it,
one program per tile of tokens. Matrix products of bfloat16 inputs are bfloat16, all others are
float32 without TF32.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from macformer.ops.linear import guard_denominator, without_autocast
from macformer.ops.maclaurin_kernels import grad_kernel, out_kernel, state_kernel
from macformer.ops.tiled import grad_numerator

NUM_PROGRAMS = 264  # two for each multiprocessor of an H100 or H200


@without_autocast
def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    signs: Tensor,
    weights: Tensor,
    constant: Tensor,
    widths: Sequence[int],
    key_padding_mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, its denominator before the guard, and the state of the keys."""
    signs = signs.contiguous()
    state, total = _sum_state(key, value, None, signs, widths, key_padding_mask)
    state, total = state * weights, total * constant
    batch, heads, query_len, head_dim = query.shape
    value_dim, query = value.shape[-1], _rows(query)
    out = query.new_empty(batch, heads, query_len, value_dim, dtype=torch.float32)
    denominator = query.new_empty(batch, heads, query_len, 1, dtype=torch.float32)
    blocks = _blocks(query, value_dim)
    out_kernel[triton.cdiv(query_len, blocks["N"]), batch * heads](
        query, signs, _table(tuple(widths), query.device), state, total, out, denominator,
        heads, query_len, head_dim, value_dim, *_columns(signs, widths), eps,
        *query.stride()[:3], **blocks,
    )  # fmt: skip
    return out, denominator, state


@without_autocast
def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    signs: Tensor,
    weights: Tensor,
    constant: Tensor,
    widths: Sequence[int],
    key_padding_mask: Tensor | None,
    eps: float,
    grad_out: Tensor,
    out: Tensor,
    denominator: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients at query, key and value."""
    signs = signs.contiguous()
    inverse = guard_denominator(denominator, eps=eps).reciprocal_()
    slope = inverse.neg().masked_fill_(denominator.abs() < eps, 0)
    grad = grad_numerator(grad_out, out, inverse, slope)
    y, u = grad[..., :-1], grad[..., -1].contiguous()
    grad_state, grad_total = _sum_state(query, y, u, signs, widths, None)
    grad_state, grad_total = grad_state * weights, grad_total * constant
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    grad_key = torch.empty_like(key, memory_format=torch.contiguous_format)
    grad_value = torch.empty_like(value, memory_format=torch.contiguous_format)
    _grad_rows(query, y, u, signs, widths, None, state, grad_total, grad_query, None)
    _grad_rows(
        key, value, None, signs, widths, key_padding_mask,
        grad_state, grad_total, grad_key, grad_value,
    )  # fmt: skip
    return grad_query, grad_key, grad_value


def _sum_state(
    x: Tensor,
    y: Tensor,
    u: Tensor | None,
    signs: Tensor,
    widths: Sequence[int],
    padding: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Sum phi(x) [y, u] and [y, u] over the sequence, u being ones where it is None."""
    batch, heads, length, head_dim = x.shape
    value_dim, num_features = y.shape[-1], widths[0]
    x, y = _rows(x), _rows(y)
    blocks = _blocks(x, value_dim)
    groups, tiles = triton.cdiv(num_features, blocks["F"]), triton.cdiv(length, blocks["N"])
    wanted = min(tiles, triton.cdiv(NUM_PROGRAMS, batch * heads * groups))
    per_split = triton.cdiv(tiles, wanted) * blocks["N"]
    splits = triton.cdiv(length, per_split)
    state = x.new_empty(batch, heads, splits, value_dim + 1, num_features, dtype=torch.float32)
    total = x.new_empty(batch, heads, splits, value_dim + 1, dtype=torch.float32)
    state_kernel[batch * heads, splits, groups](
        x, y, x if u is None else u, x if padding is None else padding,
        signs, _table(tuple(widths), x.device), state, total,
        heads, length, head_dim, value_dim, *_columns(signs, widths), per_split,
        *x.stride()[:3], *y.stride()[:3],
        HAS_U=u is not None, HAS_PADDING=padding is not None, **blocks,
    )  # fmt: skip
    return state.sum(2), total.sum(2)


def _grad_rows(
    x: Tensor,
    y: Tensor,
    u: Tensor | None,
    signs: Tensor,
    widths: Sequence[int],
    padding: Tensor | None,
    state: Tensor,
    total: Tensor,
    grad_x: Tensor,
    grad_y: Tensor | None,
) -> None:
    """Write the gradients at x, and at y where it is asked for."""
    batch, heads, length, head_dim = x.shape
    value_dim = y.shape[-1]
    x, y = _rows(x), _rows(y)
    blocks = _blocks(x, value_dim)
    grad_kernel[triton.cdiv(length, blocks["N"]), batch * heads](
        x, y, x if u is None else u, x if padding is None else padding,
        signs, _table(tuple(widths), x.device), state, total,
        grad_x, grad_x if grad_y is None else grad_y,
        heads, length, head_dim, value_dim, *_columns(signs, widths),
        *x.stride()[:3], *y.stride()[:3],
        HAS_U=u is not None, HAS_PADDING=padding is not None, GRAD_Y=grad_y is not None,
        **blocks,
    )  # fmt: skip


def _rows(x: Tensor) -> Tensor:
    """Return x with rows that are contiguous, which it copies only where they are not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _columns(signs: Tensor, widths: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the numbers of features, columns and levels, and the stride from head to head."""
    sign_stride = 0 if signs.shape[0] == 1 else signs.stride(0)
    return widths[0], signs.shape[-1], len(widths), sign_stride


@lru_cache
def _table(widths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where each level's columns start, and its width, on the device once and for all."""
    starts = [sum(widths[:j]) for j in range(len(widths))]
    return torch.tensor([*starts, *widths], dtype=torch.int32, device=device)


def _blocks(x: Tensor, value_dim: int) -> dict[str, Any]:
    """Return what the compiler fixes; tokens N and features F are the largest without spills."""
    dim, half = max(x.shape[-1], value_dim), x.dtype == torch.bfloat16
    return {
        "OPERAND": tl.bfloat16 if half else tl.float32,
        "N": 64 if half else 32,
        "F": 32 if half and dim <= 64 else 16,
        "E": max(16, triton.next_power_of_2(x.shape[-1])),
        "V": max(16, triton.next_power_of_2(value_dim)),
        "num_warps": 8,
    }
