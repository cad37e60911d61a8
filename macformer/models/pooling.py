"""From a sequence of states to one vector.

``num_front_tokens`` says how many learnt tokens of its own a pooling wants in front of the
sequence.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def counts_padding(model: nn.Module) -> bool:
    """Say whether what a model says of a row depends on how far the row is padded."""
    return bool(getattr(getattr(model, "pooling", None), "counts_padding", False))


class MeanPooling(nn.Module):
    """Average the states of the tokens that are not padding."""

    num_front_tokens = 0

    def __init__(self, *, embed_dim: int):
        super().__init__()

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B D"]:
        if key_padding_mask is None:
            return x.mean(1)
        present = ~key_padding_mask[..., None]
        return torch.where(present, x, 0).sum(1) / present.sum(1).clamp(min=1)


class PaddedMeanPooling(MeanPooling):
    """Sum the states that are not padding, over the padded length, as Skyformer's code does.

    Unlike :class:`MeanPooling` it depends on how far rows are padded.
    """

    counts_padding = True

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B D"]:
        if key_padding_mask is not None:
            x = torch.where(key_padding_mask[..., None], 0, x)
        return x.mean(1)


class UnmaskedMeanPooling(MeanPooling):
    """Average all states, those at padding too, as Long Range Arena's code does."""

    counts_padding = True

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B D"]:
        return x.mean(1)


class ClsPooling(nn.Module):
    """Read the state of a learnt token in front (Tay et al. 2021)."""

    num_front_tokens = 1

    def __init__(self, *, embed_dim: int):
        super().__init__()

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B D"]:
        return x[:, 0]


class FirstPooling(ClsPooling):
    """Read the state of the first token, which a tokenizer may have put there for it."""

    num_front_tokens = 0
