"""Attention in linear time by Triton kernels that never store features.

The passes are those of :mod:`macformer.ops.tiled`. Programs of a few features each sum the state
over a slice of the sequence, in more slices where batch and heads are few; the other kernels read
it, one program per tile of tokens. Matrix products of bfloat16 inputs are bfloat16, all others are
float32 without TF32.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor

from macformer.ops.fused_kernels import grad_kernel, read_kernel, state_kernel
from macformer.ops.linear import without_autocast
from macformer.ops.tiled import grad_numerator, guarded_inverse

NUM_PROGRAMS = 264  # two for each multiprocessor of an H100 or H200
FLOAT32_BLOCKS = {"state": (16, 32), "read": (32, 16), "grad": (16, 16), "omega": (16, 32)}


P = ParamSpec("P")
T = TypeVar("T")


def on_their_device(function: Callable[Concatenate[Tensor, P], T]) -> Callable[..., T]:
    """Launch a function's kernels where its tensors are: Triton takes the current device."""

    @wraps(function)
    def run(first: Tensor, *args: P.args, **kwargs: P.kwargs) -> T:
        with torch.cuda.device_of(first):
            return function(first, *args, **kwargs)

    return run


class FusedMap(NamedTuple):
    """A map from rows to features, as Triton functions.

    Attributes:
        num_features: The number of features.
        weights: The weight of each feature, or one for all.
        constant: The constant part of the kernel.
        parameters: What both functions read: tensors and integers.
        features: Function of a tile of rows and a group of features that returns phi.
        pull: Function that adds the gradient at the rows, given that at phi.
        num_stages: How far ahead the compiler loads, in groups of features or tiles of rows.
        pull_parameters: Adds the gradient at the parameters, from what the gradient at rows takes.
    """

    num_features: int
    weights: Tensor | float
    constant: Tensor | float
    parameters: tuple[Tensor | int, ...]
    features: Any
    pull: Any
    num_stages: int
    pull_parameters: Callable[..., None] | None = None


@without_autocast
@on_their_device
def fused_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    feature_map: FusedMap,
    *,
    key_map: FusedMap | None = None,
    key_padding_mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, its denominator before the guard, and the state of the keys.

    Args:
        key_map: That of the keys, where it is not that of the queries.
    """
    padding = dense(key_padding_mask)
    state, total = _sum_state(key, value, None, key_map or feature_map, padding)
    state, total = state * feature_map.weights, total * feature_map.constant
    shape = query.shape[:-1]
    out = query.new_empty(*shape, value.shape[-1], dtype=torch.float32)
    denominator = query.new_empty(*shape, 1, dtype=torch.float32)
    _read(query, feature_map, None, state, total, out, denominator, eps=eps)
    return out, denominator, state


@without_autocast
@on_their_device
def fused_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    feature_map: FusedMap,
    grad_out: Tensor,
    out: Tensor,
    denominator: Tensor,
    state: Tensor,
    *,
    key_map: FusedMap | None = None,
    key_padding_mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients at query, key and value."""
    key_map, padding = key_map or feature_map, dense(key_padding_mask)
    y, u = _grad_of_numerator(grad_out, out, denominator, eps=eps)
    grad_state, grad_total = _sum_state(query, y, u, feature_map, None)
    grad_state, grad_total = grad_state * feature_map.weights, grad_total * feature_map.constant
    grad_query, grad_key, grad_value = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )
    _pull(query, y, u, feature_map, None, state, grad_query)
    _pull(key, value, None, key_map, padding, grad_state, grad_key)
    _read(key, key_map, padding, grad_state, grad_total, grad_value, None, eps=eps)
    return grad_query, grad_key, grad_value


def _grad_of_numerator(
    grad_out: Tensor, out: Tensor, denominator: Tensor, *, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the gradients at n and z of o = n / z."""
    grad = grad_numerator(grad_out, out, *guarded_inverse(denominator, eps=eps))
    return grad[..., :-1], grad[..., -1].contiguous()


def _sum_state(
    x: Tensor, y: Tensor, u: Tensor | None, feature_map: FusedMap, padding: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum phi(x) [y, u] and [y, u] over the sequence, u being ones where it is None."""
    batch, heads, length, head_dim = x.shape
    value_dim, num_features = y.shape[-1], feature_map.num_features
    x, y = rows(x), rows(y)
    grid, per_split, blocks = slice_grid("state", x, value_dim, num_features)
    shape = batch, heads, grid[1], value_dim + 1
    state = x.new_empty(*shape, num_features, dtype=torch.float32)
    total = x.new_empty(*shape, dtype=torch.float32)
    state_kernel[grid](
        x, y, x if u is None else u, x if padding is None else padding,
        feature_map.parameters, state, total,
        heads, length, head_dim, value_dim, num_features, per_split,
        *x.stride()[:3], *y.stride()[:3],
        FEATURES=feature_map.features, HAS_U=u is not None, HAS_PADDING=padding is not None,
        num_stages=feature_map.num_stages, **blocks,
    )  # fmt: skip
    return state.sum(2), total.sum(2)


def _read(
    x: Tensor,
    feature_map: FusedMap,
    padding: Tensor | None,
    state: Tensor,
    total: Tensor,
    out: Tensor,
    denominator: Tensor | None,
    *,
    eps: float,
) -> None:
    """Write phi(x)^T S + total, divided by its last column where that is asked for."""
    batch, heads, length, head_dim = x.shape
    value_dim, x = out.shape[-1], rows(x)
    blocks = block_sizes("read", x, value_dim)
    read_kernel[batch * heads, triton.cdiv(length, blocks["N"])](
        x, x if padding is None else padding, feature_map.parameters, state, total,
        out, out if denominator is None else denominator,
        heads, length, head_dim, value_dim, feature_map.num_features, eps, *x.stride()[:3],
        FEATURES=feature_map.features, HAS_PADDING=padding is not None,
        DIVIDE=denominator is not None, num_stages=feature_map.num_stages, **blocks,
    )  # fmt: skip


def _pull(
    x: Tensor,
    y: Tensor,
    u: Tensor | None,
    feature_map: FusedMap,
    padding: Tensor | None,
    state: Tensor,
    grad_x: Tensor,
) -> None:
    """Write the gradient of [y, u]^T S^T phi(x) at x, and add that at the map's parameters."""
    batch, heads, length, head_dim = x.shape
    value_dim = y.shape[-1]
    x, y = rows(x), rows(y)
    blocks = block_sizes("grad", x, value_dim)
    grad_kernel[batch * heads, triton.cdiv(length, blocks["N"])](
        x, y, x if u is None else u, x if padding is None else padding,
        feature_map.parameters, state, grad_x,
        heads, length, head_dim, value_dim, feature_map.num_features,
        *x.stride()[:3], *y.stride()[:3],
        PULL=feature_map.pull, HAS_U=u is not None, HAS_PADDING=padding is not None,
        num_stages=feature_map.num_stages, **blocks,
    )  # fmt: skip
    if feature_map.pull_parameters is not None:
        feature_map.pull_parameters(x, y, u, padding, state)


def dense(key_padding_mask: Tensor | None) -> Tensor | None:
    """Return a mask as the kernels address it, which an expanded or a sliced one is not."""
    return None if key_padding_mask is None else key_padding_mask.contiguous()


def rows(x: Tensor) -> Tensor:
    """Return x with rows that are contiguous, which it copies only where they are not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def slice_grid(
    kernel: str, x: Tensor, value_dim: int, num_features: int
) -> tuple[tuple[int, int, int], int, dict[str, Any]]:
    """Cut the sequence into slices that fill the device: grid, tokens of a slice, and blocks."""
    batch, heads, length, _ = x.shape
    blocks = block_sizes(kernel, x, value_dim)
    groups, tiles = triton.cdiv(num_features, blocks["F"]), triton.cdiv(length, blocks["N"])
    wanted = min(tiles, triton.cdiv(NUM_PROGRAMS, batch * heads * groups))
    per_split = triton.cdiv(tiles, wanted) * blocks["N"]
    return (batch * heads, triton.cdiv(length, per_split), groups), per_split, blocks


def block_sizes(kernel: str, x: Tensor, value_dim: int) -> dict[str, Any]:
    """Return what the compiler fixes: tokens N and features F as large as registers allow."""
    head_dim, dim = x.shape[-1], max(x.shape[-1], value_dim)
    half, num_warps = x.dtype == torch.bfloat16, 8
    if half and dim <= 64 and kernel in ("read", "grad"):
        tokens, features, num_warps, registers = 128, 32, 4, 255
    elif half:  # a sum over tokens keeps its state in registers, and would spill with more tokens
        tokens, features = 64, 32 if dim <= 64 else 16
        registers = None if dim <= 64 else 255
    else:
        tokens, features = FLOAT32_BLOCKS[kernel]
        registers = 128 if dim <= 32 else 255
    return {
        "OPERAND": tl.bfloat16 if half else tl.float32,
        "N": tokens,
        "F": features,
        "E": max(16, triton.next_power_of_2(head_dim)),
        "V": max(16, triton.next_power_of_2(value_dim)),
        "num_warps": num_warps,
        # Left alone, ptxas spills a little to fit one more program on a multiprocessor.
        "maxnreg": registers,
    }
