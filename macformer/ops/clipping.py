"""Clip norms, in few passes over what they are of."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from macformer.ops.precision import accumulation_dtype


def clip_norm(
    x: Float[Tensor, "*batch E"], *, max_norm: float
) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch 1"]]:
    r"""Return :math:`x \min(1, \rho / \|x\|)`, and the norms before, in float32 at least.

    The norms carry no gradient, and the gradient at x cannot be differentiated again.
    """
    return _ClipNorm.apply(x, max_norm)


class _ClipNorm(torch.autograd.Function):
    r"""With :math:`y = c x`, the gradient is :math:`c g`, and where clipped, less
    :math:`c x (x^\top g) / \|x\|^2`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=accumulation_dtype(x))
        return (x * (max_norm / norm.clamp(min=max_norm))).to(x.dtype), norm

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]):
        x, ctx.max_norm = inputs
        _, norm = output
        ctx.save_for_backward(x, norm)
        ctx.mark_non_differentiable(norm)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        x, norm = ctx.saved_tensors
        larger = norm.clamp(min=ctx.max_norm)
        factor = ctx.max_norm / larger
        wide = x.to(norm.dtype)
        radial = (wide * grad).sum(-1, keepdim=True) * factor / larger.square()
        radial = radial.masked_fill(norm < ctx.max_norm, 0)
        return torch.addcmul(grad * factor, wide, radial, value=-1).to(x.dtype), None
