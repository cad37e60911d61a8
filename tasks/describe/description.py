"""What a description comes to, of tables and of series alike."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Channel(NamedTuple):
    """Values of series at each step.

    Attributes:
        mean: Of the training steps, as deviation.
        missing: The share of all values that are not there.
    """

    name: str
    mean: float
    deviation: float
    missing: float


class Description(NamedTuple):
    """Data as their task has them, and what there is to say of them.

    Attributes:
        yaml: The task.
        counts: Rows of each class in each split.
        lengths: Tokens of each training row.
        unit: What lengths are counted in.
    """

    yaml: str
    remarks: Sequence[str]
    classes: Sequence[str]
    counts: Mapping[str, Counter[str]]
    lengths: np.ndarray
    unit: str
    max_len: int
    floors: Mapping[str, Any]
    channels: Sequence[Channel] = ()
