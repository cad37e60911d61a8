"""Projection to the unit sphere."""

import torch
from jaxtyping import Float
from torch import Tensor


def to_sphere(x: Float[Tensor, "*batch E"], *, eps: float = 1e-8) -> Float[Tensor, "*batch E"]:
    r"""Divide by the norm, :math:`x / \sqrt{\|x\|^2 + \epsilon}`, in float32 at least.

    Args:
        eps: Keeps zero at zero. Gradients grow by at most :math:`\epsilon^{-1/2}`, which float16
            can hold.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + eps)).to(x.dtype)
