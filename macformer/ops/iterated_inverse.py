"""An inverse by matrix products alone, applied to values."""

import torch
from jaxtyping import Float
from torch import Tensor

from macformer.ops.precision import accumulation_dtype, without_autocast


@without_autocast
def iterated_solve(
    matrix: Float[Tensor, "*batch M N"],
    value: Float[Tensor, "*batch M Ev"],
    *,
    num_steps: int,
    eps: float = 1e-12,
) -> Float[Tensor, "*batch N Ev"]:
    r"""Multiply values by the pseudo-inverse of each matrix A, approached by an iteration.

    .. math::
        Z \leftarrow \tfrac14 Z (13 I - 15 P + 7 P^2 - P^3), \qquad P = A Z, \qquad
        Z_0 = \frac{A^\top}{\|A\|_1 \|A\|_\infty}

    (Razavi et al. 2014; Xiong et al. 2021.) Few steps leave small singular values small in the
    result, and so regularise. Zero rows and columns of A have no part in it. Every matrix has a
    start of its own: one for the whole batch would let examples depend on one another. The last Z
    is never formed, only its product with the values. P comes from A at every step: a recurrence
    for P alone needs fewer products, but loses three digits where A is close to uniform.

    Args:
        eps: Keeps the start of a matrix of zeros finite.
    """
    dtype = accumulation_dtype(value)
    a, v = matrix.to(dtype), value.to(dtype)
    size = a.abs()
    norms = size.sum(-2).amax(-1) * size.sum(-1).amax(-1)
    z = a.mT / norms.clamp(min=eps)[..., None, None]
    eye = torch.eye(a.shape[-2], dtype=dtype, device=a.device)
    for _ in range(num_steps - 1):
        p = a @ z
        square = p @ p
        z = z @ (13 * eye - 15 * p + 7 * square - p @ square) / 4
    if num_steps:
        once = a @ (z @ v)
        twice = a @ (z @ once)
        v = (13 * v - 15 * once + 7 * twice - a @ (z @ twice)) / 4
    return (z @ v).to(value.dtype)


def iterated_solve_reference(matrix: Tensor, value: Tensor) -> Tensor:
    """Return the limit."""
    return torch.linalg.pinv(matrix) @ value
