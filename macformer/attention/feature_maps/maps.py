r"""Feature maps: modules from queries or keys to non-negative features.

A factory ``(*, num_heads, head_dim) -> module``; linear attention builds one for queries
and one for keys. A map may have a method ``attend(query, key, value, *, map_key,
key_padding_mask)`` beside, which is called on that of the queries and stores no features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from macformer.ops import elu_attention, hedgehog_attention, relu_attention
from macformer.ops.hedgehog import hedgehog_features
from macformer.ops.pointwise import elu_features, relu_features


class EluMap(nn.Module):
    r""":math:`\phi(x) = \mathrm{elu}(x) + 1` (Katharopoulos et al. 2020, equation 7)."""

    def __init__(self, *, num_heads: int, head_dim: int):
        super().__init__()

    def forward(self, x: Float[Tensor, "B H N E"]) -> Float[Tensor, "B H N E"]:
        return elu_features(x)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        map_key: nn.Module,
        key_padding_mask: Tensor | None,
    ) -> Tensor:
        return elu_attention(query, key, value, key_padding_mask=key_padding_mask)


class ReluMap(nn.Module):
    r""":math:`\phi(x) = \mathrm{relu}(x) + \epsilon`, the generalised attention of Performer.

    Long Range Arena's code runs its Performer with this map, and no random features, on all tasks
    but ListOps.

    Args:
        shift: :math:`\epsilon`, which keeps the denominator from zero.
    """

    def __init__(self, *, num_heads: int, head_dim: int, shift: float):
        super().__init__()
        self.shift = shift

    def forward(self, x: Float[Tensor, "B H N E"]) -> Float[Tensor, "B H N E"]:
        return relu_features(x, shift=self.shift)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        map_key: nn.Module,
        key_padding_mask: Tensor | None,
    ) -> Tensor:
        options = {"shift": self.shift, "key_padding_mask": key_padding_mask}
        return relu_attention(query, key, value, **options)


class HedgehogMap(nn.Module):
    r"""A learnt map that can imitate the spikes of softmax (Zhang et al. 2024, Hedgehog).

    .. math:: \phi(x) = \mathrm{softmax}([W_h x, -W_h x])

    with a matrix for each head, initially the identity.
    """

    def __init__(self, *, num_heads: int, head_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(head_dim).repeat(num_heads, 1, 1))

    def forward(self, x: Float[Tensor, "B H N E"]) -> Float[Tensor, "B H N twoE"]:
        return hedgehog_features(x, self.weight)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        map_key: "HedgehogMap",
        key_padding_mask: Tensor | None,
    ) -> Tensor:
        weights = self.weight, map_key.weight
        return hedgehog_attention(query, key, value, *weights, key_padding_mask=key_padding_mask)
