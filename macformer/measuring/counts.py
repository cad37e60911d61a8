"""What a batch holds, in the units that speeds are given in."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Counts(NamedTuple):
    """What was worked off.

    Attributes:
        tokens: Present positions; a tensor on the device, which nothing waits for.
        positions: Tokens with the padding.
    """

    examples: int
    tokens: Tensor | int
    positions: int


def count_batch(batch: Mapping[str, Tensor]) -> Counts:
    """Count what is in a batch, whose channels of a time series are one position."""
    inputs, padding = batch["inputs"], batch.get("key_padding_mask")
    channels = inputs.shape[-1] if inputs.is_floating_point() else 1
    positions = inputs.numel() // channels
    tokens = positions if padding is None else (~padding).sum()
    return Counts(len(batch["labels"]), tokens, positions)
