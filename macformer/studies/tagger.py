"""A model that reverses sequences: it answers with a symbol for each token."""

from typing import Any

from jaxtyping import Bool, Float, Int
from omegaconf import DictConfig
from torch import Tensor, nn

from macformer.models import SequenceEncoder
from macformer.runs.build import build_model


class TokenTagger(nn.Module):
    """Classify each token by its state; logits have one row for each token of the batch."""

    def __init__(self, encoder: SequenceEncoder, *, embed_dim: int, num_classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(
        self, inputs: Int[Tensor, "B N"], key_padding_mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B*N C"]:
        states, _ = self.encoder(inputs, key_padding_mask)
        return self.head(states[:, self.encoder.num_front_tokens :]).flatten(0, 1)


def build_tagger(composed: DictConfig, *, num_symbols: int) -> TokenTagger:
    """Build the encoder of a composed cell, with a head that answers for each token."""
    classifier: Any = build_model(composed)
    embed_dim = composed.model.embed_dim
    return TokenTagger(classifier.encoder, embed_dim=embed_dim, num_classes=num_symbols)
