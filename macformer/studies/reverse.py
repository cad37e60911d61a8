"""Reverse a sequence: an encoder's small stand-in for translation, with one label for each token.

    input  3 1 4 1 5      label  5 1 4 1 3

Every output depends on one position elsewhere, so a model that only averages its inputs cannot do
better than to name the most frequent symbols of the sequence.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.models import SequenceClassifier
from macformer.training.step import Batch


def reverse_batches(
    *, batch_size: int, seq_len: int, num_symbols: int, seed: int
) -> Iterator[Batch]:
    """Draw batches of random sequences without end; ids start at 1, labels at 0."""
    generator = torch.Generator().manual_seed(seed)
    padding = torch.zeros(batch_size, seq_len, dtype=torch.bool)
    while True:
        symbols = torch.randint(num_symbols, (batch_size, seq_len), generator=generator)
        labels = symbols.flip(1).flatten()
        yield {"inputs": symbols + 1, "key_padding_mask": padding, "labels": labels}


class TokenTagger(nn.Module):
    """Classify each token by the encoder of a classifier, whose pooling and head are left out."""

    def __init__(self, classifier: SequenceClassifier, *, num_symbols: int):
        super().__init__()
        self.embedding = nn.Sequential(classifier.embedding, classifier.positions)
        self.layers = classifier.layers
        self.norm = classifier.norm
        self.head = nn.Linear(classifier.norm.normalized_shape[0], num_symbols)

    def forward(
        self, inputs: Int[Tensor, "B N"], key_padding_mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B*N C"]:
        x = self.embedding(inputs)
        for layer in self.layers:
            x = layer(x, key_padding_mask)
        return self.head(self.norm(x)).flatten(0, 1)
