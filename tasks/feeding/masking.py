"""Hide tokens and ask for them, as a model is pretrained: a task's rows without their labels."""

from collections.abc import Iterator

import torch
from numpy.random import SeedSequence
from torch import Tensor

from tasks.feeding.batches import EvaluationBatches, TrainingBatches
from tasks.feeding.collate import PADDING_ID


class HiddenTokens:
    """The batches of a stream with tokens hidden; those of batch t depend on (seed, t) alone.

    Args:
        share: Of the tokens of a row that are hidden.
        num_asked: Places at which each row is asked.
    """

    def __init__(self, batches: TrainingBatches, *, share: float, num_asked: int, seed: int):
        self.batches = batches
        self.share = share
        self.num_asked = num_asked
        self.seed = seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for step, batch in enumerate(self.batches, self.batches.start):
            generator = _generator(self.seed, self.batches.rank, step)
            yield hide_tokens(
                batch, share=self.share, num_asked=self.num_asked, generator=generator
            )


class HiddenTokensOfSplit:
    """The same over a split, whose tokens are hidden alike each time."""

    def __init__(self, batches: EvaluationBatches, *, share: float, num_asked: int):
        self.batches = batches
        self.share = share
        self.num_asked = num_asked

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for step, batch in enumerate(self.batches):
            generator = _generator(step)
            yield hide_tokens(
                batch, share=self.share, num_asked=self.num_asked, generator=generator
            )


def hide_tokens(
    batch: dict[str, Tensor], *, share: float, num_asked: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Replace random tokens of each row by the id of padding, and ask for what stood there.

    Of a row of n tokens share * n are hidden, at least one. All rows are asked at the same number
    of places, whatever the width of their batch: a shorter one is asked at its hidden tokens again,
    so that each row weighs alike. Nothing is read back from the device.

    Args:
        batch: inputs (B, N), or (B, 2, N) for pairs, whose documents become rows of their own.
        num_asked: Q.
        generator: One of the CPU, wherever the batch is.

    Returns:
        inputs and, where the batch has one, key_padding_mask (B, N), places (B, Q), and labels
        (B, Q), the ids at the places.
    """
    rows = {
        name: batch[name].flatten(0, -2) for name in ("inputs", "key_padding_mask") if name in batch
    }
    inputs = rows["inputs"]
    mask = rows.get("key_padding_mask", torch.zeros_like(inputs, dtype=torch.bool))
    # drawn alike wherever the rows are: a generator of another device draws other numbers
    scores = torch.rand(inputs.shape, generator=generator).to(inputs.device, non_blocking=True)
    order = scores.masked_fill_(mask, 2.0).argsort(-1)  # present ones in random order, then padding
    num_hidden = ((~mask).sum(-1, keepdim=True) * share).round().long().clamp(min=1)
    turn = torch.arange(num_asked, device=inputs.device) % num_hidden
    places = order.gather(-1, turn)
    return rows | {
        "inputs": inputs.scatter(-1, places, PADDING_ID),
        "places": places,
        "labels": inputs.gather(-1, places),
    }


def _generator(*words: int) -> torch.Generator:
    """Return the generator of a batch; SeedSequence mixes words of which torch reads 32 bits."""
    state = SeedSequence(words).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))
