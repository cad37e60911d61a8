"""From pooled vectors to class logits."""

from collections.abc import Callable, Sequence
from itertools import pairwise

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
    """Classify with a perceptron.

    Args:
        hidden_dims: Widths of the hidden layers, the first one first; none for a linear classifier.
        paired: Whether the input is a pair of documents.
        combine: How a pair becomes one vector.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_classes: int,
        paired: bool,
        hidden_dims: Sequence[int],
        combine: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        self.combine = combine if paired else nn.Identity()
        width = combine(torch.zeros(1, 2, embed_dim)).shape[-1] if paired else embed_dim
        layers: list[nn.Module] = []
        for num_in, num_out in pairwise([width, *hidden_dims]):
            layers += [nn.Linear(num_in, num_out), nn.ReLU()]
        last = hidden_dims[-1] if hidden_dims else width
        self.mlp = nn.Sequential(*layers, nn.Linear(last, num_classes))

    def forward(
        self, pooled: Float[Tensor, "B *several D"]
    ) -> Float[Tensor, "B C"] | Float[Tensor, "B Q C"]:
        return self.mlp(self.combine(pooled))
