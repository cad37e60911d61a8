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

from macformer.ops.fused_backward import backward_kernel
from macformer.ops.fused_kernels import read_kernel, reduce_kernel, state_kernel
from macformer.ops.precision import without_autocast
from macformer.ops.tiling import contiguous_rows

NUM_PROGRAMS = 264  # two for each multiprocessor of an H100 or H200
SUMMED_BLOCK = 1024  # entries of the state that a program sums over slices
# Of each kernel: tokens, features and warps of a program.
BFLOAT16_BLOCKS = {
    "state": (32, 64, 4),
    "read": (128, 32, 4),
    "backward": (128, 32, 8),
    "omega": (64, 32, 4),
}
FLOAT32_BLOCKS = {
    "state": (16, 32, 8),
    "read": (32, 16, 8),
    "backward": (16, 16, 8),
    "omega": (16, 32, 8),
}


P = ParamSpec("P")
T = TypeVar("T")


def on_their_device(function: Callable[Concatenate[Tensor, P], T]) -> Callable[..., T]:
    """Launch a function's kernels where its tensors are: Triton takes the current device."""

    @wraps(function)
    def run(first: Tensor, *args: P.args, **kwargs: P.kwargs) -> T:
        with torch.cuda.device_of(first):
            return function(first, *args, **kwargs)

    return run


Run = tuple[int, ...]  # a first group of features, the one after its last, what their map needs


class FusedMap(NamedTuple):
    """A map from rows to features, as Triton functions.

    Attributes:
        num_features: The number of features.
        weights: The weight of each feature, or one for all.
        constant: The constant part of the kernel, a tensor where the weights are one.
        parameters: What both functions read: tensors and integers.
        features: Function of a tile of rows and a group of features that returns phi.
        pull: Function that adds the gradient at the rows, given that at phi, and returns phi, too.
        num_stages: How far ahead the compiler loads, in groups of features or tiles of rows.
        runs: Function of the blocks of a kernel: which groups of features are compiled together.
            All of them, unless given.
        pull_parameters: Adds the gradient at the parameters, from what the gradient at rows takes.
    """

    num_features: int
    weights: Tensor | float
    constant: Tensor | float
    parameters: tuple[Tensor | int, ...]
    features: Any
    pull: Any
    num_stages: int
    runs: Callable[[dict[str, Any]], tuple[Run, ...]] | None = None
    pull_parameters: Callable[..., None] | None = None

    def compiled(self, blocks: dict[str, Any]) -> dict[str, Any]:
        """Return what the compiler fixes: the blocks, and the runs of groups of their features."""
        groups = triton.cdiv(self.num_features, blocks["F"])
        runs = ((0, groups, 0, 0),) if self.runs is None else self.runs(blocks)
        options = {"RUNS": runs, "NUM_RUNS": len(runs), "num_stages": self.num_stages}
        return options | blocks


class Gradient(NamedTuple):
    """The gradient at o = n / z, with o and the z before its guard: what kernels read it from."""

    grad_out: Tensor
    out: Tensor
    denominator: Tensor
    eps: float


@without_autocast
@on_their_device
def fused_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_map: FusedMap,
    key_map: FusedMap,
    *,
    key_padding_mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, its denominator before the guard, and the state of the keys."""
    state, total = _sum_state(key, value, key_map, dense(key_padding_mask))
    batch, heads, length, head_dim = query.shape
    value_dim = value.shape[-1]
    out = query.new_empty(batch, heads, length, value_dim, dtype=torch.float32)
    denominator = query.new_empty(batch, heads, length, 1, dtype=torch.float32)
    x, blocks = contiguous_rows(query), block_sizes("read", query, value_dim)
    read_kernel[batch * heads, triton.cdiv(length, blocks["N"])](
        x, query_map.parameters, state, total, out, denominator,
        heads, length, head_dim, value_dim, query_map.num_features, eps, *x.stride()[:3],
        FEATURES=query_map.features, **query_map.compiled(blocks),
    )  # fmt: skip
    return out, denominator, state


@without_autocast
@on_their_device
def fused_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_map: FusedMap,
    key_map: FusedMap,
    grad_out: Tensor,
    out: Tensor,
    denominator: Tensor,
    state: Tensor,
    *,
    key_padding_mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients at query, key and value."""
    padding = dense(key_padding_mask)
    gradient = Gradient(contiguous_rows(grad_out), out, denominator, eps)
    grad_state, grad_total = _sum_state(query, gradient.grad_out, query_map, None, gradient)
    grads = [
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    ]
    batch, heads, query_len, head_dim = query.shape
    key_len, value_dim = value.shape[-2:]
    q, k, v, g = (contiguous_rows(x) for x in (query, key, value, grad_out))
    blocks = block_sizes("backward", query, value_dim)
    tiles = triton.cdiv(query_len, blocks["N"]) + triton.cdiv(key_len, blocks["N"])
    backward_kernel[batch * heads, tiles](
        q, k, v, g, out, denominator, q if padding is None else padding,
        query_map.parameters, key_map.parameters, state, grad_state, grad_total, *grads,
        heads, query_len, key_len, head_dim, value_dim, query_map.num_features, eps,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *g.stride()[:3],
        PULL_QUERIES=query_map.pull, PULL_KEYS=key_map.pull, KEY_FEATURES=key_map.features,
        HAS_PADDING=padding is not None, TOGETHER=max(head_dim, value_dim) <= 64,
        **query_map.compiled(blocks),
    )  # fmt: skip
    if query_map.pull_parameters is not None:
        query_map.pull_parameters(query, g, None, state, gradient)
        query_map.pull_parameters(key, value, padding, grad_state, None)
    return grads[0], grads[1], grads[2]


def _sum_state(
    x: Tensor,
    y: Tensor,
    feature_map: FusedMap,
    padding: Tensor | None,
    gradient: Gradient | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum phi(x) [y, 1] and [y, 1] over the sequence, and weight both.

    Where y is a gradient at the output, that at [n, z] stands in the place of [y, 1].
    """
    batch, heads, length, head_dim = x.shape
    value_dim, num_features = y.shape[-1], feature_map.num_features
    x, y = contiguous_rows(x), contiguous_rows(y)
    grid, per_split, blocks = slice_grid("state", x, value_dim, num_features)
    shape = batch, heads, grid[1], value_dim + 1
    parts = x.new_empty(*shape, num_features, dtype=torch.float32)
    part_totals = x.new_empty(*shape, dtype=torch.float32)
    out, denominator, eps = sources(x, gradient)
    state_kernel[grid](
        x, y, out, denominator, x if padding is None else padding,
        feature_map.parameters, parts, part_totals,
        heads, length, head_dim, value_dim, num_features, per_split, eps,
        *x.stride()[:3], *y.stride()[:3],
        FEATURES=feature_map.features, HAS_OUT=gradient is not None,
        HAS_PADDING=padding is not None, **feature_map.compiled(blocks),
    )  # fmt: skip
    state = x.new_empty(batch, heads, value_dim + 1, num_features, dtype=torch.float32)
    total = x.new_empty(batch, heads, value_dim + 1, dtype=torch.float32)
    blocks = triton.cdiv(state[0, 0].numel(), SUMMED_BLOCK)
    reduce_kernel[batch * heads, blocks](
        parts, part_totals, feature_map.weights, feature_map.constant, state, total,
        grid[1], value_dim + 1, num_features,
        WEIGHTED=isinstance(feature_map.weights, Tensor), SIZE=SUMMED_BLOCK,
        R=triton.next_power_of_2(value_dim + 1),
    )  # fmt: skip
    return state, total


def sources(x: Tensor, gradient: Gradient | None) -> tuple[Tensor, Tensor, float]:
    """Return what kernels read beside y: out, denominator and its guard; of values, nothing."""
    if gradient is None:
        return x, x, 0.0
    return gradient.out, gradient.denominator, gradient.eps


def dense(key_padding_mask: Tensor | None) -> Tensor | None:
    """Return a mask as the kernels address it, which an expanded or a sliced one is not."""
    return None if key_padding_mask is None else key_padding_mask.contiguous()


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
    half = x.dtype == torch.bfloat16
    tokens, features, num_warps = (BFLOAT16_BLOCKS if half else FLOAT32_BLOCKS)[kernel]
    if half and dim > 64:
        tokens, features, num_warps = 64, 16, 8
    elif dim > 64:
        tokens, features, num_warps = 16, 16, 8
    return {
        "OPERAND": tl.bfloat16 if half else tl.float32,
        "N": tokens,
        "F": features,
        "E": max(16, triton.next_power_of_2(head_dim)),
        "V": max(16, triton.next_power_of_2(value_dim)),
        "num_warps": num_warps,
        # Left alone, ptxas spills a little to fit one more program on a multiprocessor.
        "maxnreg": 255,
    }
