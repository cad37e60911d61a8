"""From pooled vectors to class logits."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def nli_pair(pair: Float[Tensor, "B 2 D"]) -> Float[Tensor, "B fourD"]:
    r"""Combine a pair as :math:`[x_1, x_2, x_1 x_2, x_1 - x_2]` (Tay et al. 2021, retrieval)."""
    first, second = pair.unbind(1)
    return torch.cat([first, second, first * second, first - second], dim=-1)


def concatenate_pair(pair: Float[Tensor, "B 2 D"]) -> Float[Tensor, "B twoD"]:
    r"""Combine two documents as :math:`[x_1, x_2]`."""
    return pair.flatten(1)


class MLPHead(nn.Module):
    """Classify with one hidden layer.

    Args:
        paired: Whether the input is a pair of documents.
        combine: How a pair becomes one vector.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_classes: int,
        paired: bool,
        hidden_dim: int,
        combine: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        self.combine = combine if paired else nn.Identity()
        width = combine(torch.zeros(1, 2, embed_dim)).shape[-1] if paired else embed_dim
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, num_classes)
        )

    def forward(self, pooled: Float[Tensor, "B *pair D"]) -> Float[Tensor, "B C"]:
        return self.mlp(self.combine(pooled))
