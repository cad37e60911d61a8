"""How the directions of random features are drawn: each alone is standard normal."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def independent(*, num_features: int, head_dim: int) -> Float[Tensor, "E F"]:
    """Draw independent directions."""
    return torch.randn(head_dim, num_features)


def orthogonal(*, num_features: int, head_dim: int) -> Float[Tensor, "E F"]:
    """Draw blocks of ``head_dim`` orthogonal directions (Choromanski et al. 2021, section 3).

    Norms are those of independent normal vectors. The orthogonal factor of a normal matrix is
    uniform over rotations only with the signs that make the other factor's diagonal positive, which
    the published code leaves to LAPACK; without them the estimated kernel is biased.
    """
    blocks = []
    for _ in range(math.ceil(num_features / head_dim)):
        q, r = torch.linalg.qr(torch.randn(head_dim, head_dim, dtype=torch.float64))
        blocks.append(q * r.diagonal().sign())
    norms = torch.randn(head_dim, num_features, dtype=torch.float64).norm(dim=0)
    return (torch.cat(blocks, dim=1)[:, :num_features] * norms).float()
