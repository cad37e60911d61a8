"""Reverse a sequence: an encoder's small stand-in for translation, with one label for each token.

    input  3 1 4 1 5      label  5 1 4 1 3

Every output depends on one position elsewhere, so a model that only averages its inputs cannot do
better than to name the most frequent symbols of the sequence.
"""

from collections.abc import Iterator

import torch

from macformer.training.objectives import Batch

TEST_SEED = 2**31  # of the test sequences, whatever the run's seed


def reverse_batches(
    *, batch_size: int, seq_len: int, num_symbols: int, seed: int
) -> Iterator[Batch]:
    """Draw batches of random sequences without end; ids start at 1, labels at 0."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        symbols = torch.randint(num_symbols, (batch_size, seq_len), generator=generator)
        labels = symbols.flip(1).flatten()
        yield {"inputs": symbols + 1, "labels": labels}
