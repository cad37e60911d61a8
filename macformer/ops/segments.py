"""Means over segments of the present tokens."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from macformer.ops.precision import accumulation_dtype
from macformer.ops.present import locate, mark_present, take


class _Segments(NamedTuple):
    """Which token lies in which segment: W slots for each of M segments, and the way back."""

    positions: Int[Tensor, "B M W"]
    used: Bool[Tensor, "B M W"]
    segment: Int[Tensor, "B N"]
    present: Bool[Tensor, "B N"]


def segment_means(
    x: Float[Tensor, "B H N E"],
    *,
    num_segments: int,
    padding_mask: Bool[Tensor, "B N"] | None = None,
) -> tuple[Float[Tensor, "B H M E"], Bool[Tensor, "B M"]]:
    r"""Average runs of present tokens of about equal length, in order.

    .. math:: \bar x_m = \operatorname{mean}\{x_j : \lfloor r_j M / n \rfloor = m\}

    with :math:`r_j` the number of present tokens before j and n that of all of them, so that
    padding has no place anywhere. Both directions gather rows: nothing is scattered, and memory is
    linear in N. Half-precision inputs are averaged in float32.

    Returns:
        The means, zero in an empty segment, and which segments are empty: some are where n < M.
    """
    present = mark_present(x, padding_mask)
    segments, sizes = _divide(present, num_segments)
    wide = x.to(accumulation_dtype(x))
    sums = _SumSegments.apply(wide, *segments)
    return sums / sizes.clamp(min=1)[:, None, :, None], sizes == 0


def segment_means_reference(
    x: Tensor, *, num_segments: int, padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Loop over examples and segments."""
    means = x.new_zeros(*x.shape[:2], num_segments, x.shape[-1])
    is_empty = torch.ones(len(x), num_segments, dtype=torch.bool)
    for i, present in enumerate(mark_present(x, padding_mask)):
        tokens = x[i, :, present]
        ids = torch.arange(tokens.shape[1]) * num_segments // max(tokens.shape[1], 1)
        for m in ids.unique().tolist():
            means[i, :, m] = tokens[:, ids == m].mean(1)
            is_empty[i, m] = False
    return means, is_empty


def _divide(present: Tensor, num_segments: int) -> tuple[_Segments, Tensor]:
    """Segment m holds the ranks from ceil(m n / M) on, below ceil((m + 1) n / M)."""
    length, device = present.shape[1], present.device
    count = present.sum(1, keepdim=True)
    bounds = torch.arange(num_segments + 1, device=device) * count
    bounds = (bounds + num_segments - 1) // num_segments
    sizes = bounds.diff(dim=1)
    slots = torch.arange(-(-length // num_segments), device=device)  # those of a full row
    ranks = bounds[:, :-1, None] + slots
    positions = locate(present, ranks.flatten(1)).view_as(ranks)
    segment = (present.cumsum(1) - 1).clamp(min=0) * num_segments // count.clamp(min=1)
    return _Segments(positions, slots < sizes[..., None], segment, present), sizes


class _SumSegments(torch.autograd.Function):
    """Gather the rows of each segment; the gradient of a row is gathered from its segment."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, positions: Tensor, used: Tensor, segment: Tensor, present: Tensor
    ) -> Tensor:
        ctx.save_for_backward(segment, present)
        rows = take(x, positions.flatten(1)).unflatten(2, positions.shape[1:])
        return rows.masked_fill_(~used[:, None, :, :, None], 0).sum(3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        segment, present = ctx.saved_tensors
        grad = take(grads[0], segment).masked_fill_(~present[:, None, :, None], 0)
        return grad, None, None, None, None
