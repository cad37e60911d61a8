"""Rows in another order, with a backward pass that gathers, too."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def permute_rows(
    x: Float[Tensor, "N E"], order: Int[Tensor, " N"], inverse: Int[Tensor, " N"]
) -> Float[Tensor, "N E"]:
    """Return ``x[order]``, where ``order[inverse]`` counts up.

    The gradient of indexing adds up rows one by one, in an order that a GPU does not keep; that of
    a permutation is the inverse permutation.
    """
    return _Permute.apply(x, order, inverse)


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None
