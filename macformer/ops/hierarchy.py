r"""Attention coarser with distance: windows over means of ever longer runs of tokens, one softmax.

Behind their entries, queries have a one, and keys the logarithm of the number of tokens that they
stand for: the product of both weighs them. :mod:`macformer.ops.levels` says where they lie.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from macformer.ops.flash import attend, attend_backward, lowest
from macformer.ops.levels import Layout, in_pairs, masks_of_levels, some_heads
from macformer.ops.precision import accumulation_dtype, without_autocast


@without_autocast
def hierarchical_attention(
    query: Float[Tensor, "B H N E"],
    key: Float[Tensor, "B H N E"],
    value: Float[Tensor, "B H N Ev"],
    present: Bool[Tensor, "B N"],
    *,
    block_size: int,
) -> Float[Tensor, "B H N Ev"]:
    r"""Attend exactly nearby, and to averages over ever longer runs of tokens further off.

    .. math::
        o_i = \frac{\sum_j e^{s_{ij}} v_j}{\sum_j e^{s_{ij}}}, \qquad
        s_{ij} = \frac{\bar q^{(l)}_i \cdot \bar k^{(l)}_j}{\sqrt E}

    where l is the least level at which the blocks of i and j are the same or neighbours, blocks at
    level l being ``block_size`` :math:`2^l` tokens long, and :math:`\bar q^{(l)}_i` is the mean
    over the present ones of the :math:`2^l` tokens around i.

    Args:
        present: False at padding, where query, key and value are zero.
        block_size: Even.
    """
    return _Hierarchy.apply(query, key, value, present, block_size)


class _Hierarchy(torch.autograd.Function):
    r"""Keep the means, the output and the levels' normalisers.

    A level has the weight w in the softmax over itself and all coarser ones. Beginning with
    :math:`h = [\dot o, -\dot o \cdot o]`, the gradient at its output is :math:`w h`, and
    :math:`(1 - w) h`, summed over the two rows of a run, is the h of the next level. The last
    column meets one of ones behind the values, so that the gradient of a logit is
    :math:`p w (\dot o \cdot v - \dot o \cdot o)` with the output o of all levels.
    """

    @staticmethod
    def forward(
        ctx, query: Tensor, key: Tensor, value: Tensor, present: Tensor, block_size: int
    ) -> Tensor:
        scale = query.shape[-1] ** -0.5
        out = torch.empty_like(value, memory_format=torch.contiguous_format)
        masks, saved = masks_of_levels(block_size, query), []
        for heads in some_heads(out):
            layout = Layout(out[heads], block_size)
            inputs = [x[heads] for x in (query, key, value)]
            rows, shares = _take_means(inputs, present[heads[0]], layout, scale=scale)
            results = [
                attend(*tensors, mask, scale=scale)
                for (_, *tensors), mask in zip(layout.parts(rows), masks, strict=False)
            ]
            outs, z = (torch.cat(x) for x in zip(*results, strict=True))
            total, *finer = reversed(layout.levels(outs))
            for fine, weight in zip(finer, reversed(_weights(layout.levels(z))), strict=True):
                total = torch.lerp(total.unsqueeze(3), in_pairs(fine), in_pairs(weight))
                total = total.flatten(2, 3)
            out[heads] = total[:, :, : out.shape[2], : out.shape[3]]
            saved += [rows, shares, z]
        ctx.block_size, ctx.scale = block_size, scale
        ctx.save_for_backward(query, key, value, out, *saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *saved = ctx.saved_tensors
        inputs, masks = (query, key, value), masks_of_levels(ctx.block_size, query)
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]
        each = zip(some_heads(out), saved[::3], saved[1::3], saved[2::3], strict=True)
        for heads, rows, shares, z in each:
            layout = Layout(out[heads], ctx.block_size)
            of_outs = _share_out(grad[heads], out[heads], z, layout, like=rows)
            nothing = of_outs.new_zeros(of_outs.shape[-1]).expand_as(of_outs)
            of_means = torch.empty_like(layout.tiles(rows))
            for (tiles, *tensors), mask in zip(layout.parts(rows), masks, strict=False):
                tensors = of_outs[tiles], *tensors, nothing[tiles], z[tiles]
                of_query, *windows = attend_backward(*tensors, mask, scale=ctx.scale)
                sums = of_query, *map(layout.merge, windows)
                for part, x in zip(of_means[tiles].chunk(3, dim=-1), sums, strict=True):
                    part.copy_(x)
                del of_query, windows, sums, part, x  # before the next ones are made
            for whole, part in zip(grads, _spread(of_means, shares, layout), strict=True):
                whole[heads] = part[:, :, : whole.shape[2], : whole.shape[3]]
        return *grads, None, None


def _take_means(
    inputs: Sequence[Tensor], present: Tensor, layout: Layout, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the means of all levels, those of query, key and value side by side.

    And which share of the mean of a run a token of it has.
    """
    length, width = inputs[0].shape[2], max(x.shape[-1] for x in inputs) + 1
    dtype = accumulation_dtype(inputs[0])
    rows = inputs[0].new_zeros(layout.num_rows + 2 * layout.block, 3 * width, dtype=dtype)
    levels = layout.levels(layout.tiles(rows))
    finest = levels[0][:, :, :length]
    for part, x in zip(finest.chunk(3, dim=-1), inputs, strict=True):
        part[..., : x.shape[-1]] = x
    finest[..., width - 1] = present[:, None]
    for fine, coarse in pairwise(levels):
        _add_pairs(fine, coarse)

    counts = rows[:, width - 1, None].clone()
    shares = counts.clamp(min=1).reciprocal_()
    for level, share in zip(levels[1:], layout.levels(layout.tiles(shares))[1:], strict=True):
        level *= share
    rows[:, width - 1 :: 2 * width] = 1
    # a run counts once for each token in it
    logs = torch.where(counts > 0, counts.log() / scale, lowest(dtype) / scale)
    rows[:, 2 * width - 1, None] = logs
    return rows, shares


def _share_out(
    grad: Tensor, out: Tensor, normalisers: Tensor, layout: Layout, *, like: Tensor
) -> Tensor:
    """Return the gradients at the outputs of the levels, in tiles."""
    shape = *layout.tiles(like).shape[:-1], like.shape[-1] // 3
    of_outs = like.new_zeros(shape)
    levels = layout.levels(of_outs)
    finest = levels[0][:, :, : grad.shape[2]]
    finest[..., : grad.shape[3]] = grad
    finest[..., -1] = (finest[..., : grad.shape[3]] * out).sum(-1).neg_()
    weights = _weights(layout.levels(normalisers))
    for (fine, coarse), weight in zip(pairwise(levels), weights, strict=True):
        own = weight * fine
        _add_pairs(fine.sub_(own), coarse)
        fine.copy_(own)
    return of_outs


def _add_pairs(fine: Tensor, coarse: Tensor) -> None:
    """Write the sums of the two rows of each run; Dynamo takes no ``out`` with gaps."""
    first, second = in_pairs(fine).unbind(3)
    coarse.copy_(first).add_(second)


def _spread(of_means: Tensor, shares: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Return the gradients at query, key and value."""
    levels = layout.levels(of_means)
    for level, share in zip(levels[1:], layout.levels(layout.tiles(shares))[1:], strict=True):
        level *= share
    for fine, coarse in reversed([*pairwise(levels)]):
        in_pairs(fine).add_(coarse.unsqueeze(3))
    return levels[0].chunk(3, dim=-1)


def _weights(normalisers: list[Tensor]) -> list[Tensor]:
    """Return the weight of each level but the coarsest in the softmax over it and all coarser."""
    *finer, above = normalisers
    weights = []
    for own in map(in_pairs, reversed(finer)):
        both = torch.logaddexp(own, above.unsqueeze(3))
        weights.append((own - both).exp_().flatten(2, 3))
        above = both.flatten(2, 3)
    return weights[::-1]
