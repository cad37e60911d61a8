"""From a sequence of states to one vector.

A pooling may put tokens of its own in front of the sequence: ``num_tokens`` says how many,
``extend`` adds them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad


class MeanPooling(nn.Module):
    """Average the states of the tokens that are not padding."""

    num_tokens = 0

    def __init__(self, *, embed_dim: int):
        super().__init__()

    def extend(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        return x, mask

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B D"]:
        present = ~key_padding_mask[..., None]
        return torch.where(present, x, 0).sum(1) / present.sum(1).clamp(min=1)


class PaddedMeanPooling(MeanPooling):
    """Sum the states that are not padding, over the padded length, as Skyformer's code does.

    Unlike :class:`MeanPooling` it depends on how far rows are padded: leave batches untrimmed.
    """

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B D"]:
        return torch.where(key_padding_mask[..., None], 0, x).mean(1)


class UnmaskedMeanPooling(MeanPooling):
    """Average all states, those at padding too, as Long Range Arena's code does."""

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B D"]:
        return x.mean(1)


class ClsPooling(nn.Module):
    """Read the state of a learnt token put in front, initially zero (Tay et al. 2021)."""

    num_tokens = 1

    def __init__(self, *, embed_dim: int):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(embed_dim))

    def extend(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"]]:
        token = self.token.to(x.dtype).expand(len(x), 1, -1)
        return torch.cat([token, x], dim=1), pad(mask, (1, 0), value=False)

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B D"]:
        return x[:, 0]
