"""Share rows out among splits so that what belongs together stays together."""

from typing import Any

import numpy as np
from jaxtyping import Int, Int8, Shaped

from tasks.errors import DataError, is_number

TRAIN, VALIDATION, TEST = 0, 1, 2


def check_fractions(**fractions: Any) -> None:
    """Refuse shares of the rows, named as the task's options, that leave a split without any.

    Raises:
        DataError: With the shares and what is allowed.
    """
    shares = fractions.values()
    if not all(is_number(share) and share > 0 for share in shares) or sum(shares) >= 1:
        given = " and ".join(f"task.{name} is {share}" for name, share in fractions.items())
        raise DataError(f"{given}; each must be above 0, and together they must be below 1")


def share_out(
    keys: Shaped[np.ndarray, "rows"],
    *,
    strata: Int[np.ndarray, "rows"] | None,
    validation_fraction: float,
    test_fraction: float,
    at_least_one: bool,
) -> Int8[np.ndarray, "rows"]:
    """Return the split of each row: rows of one key share one.

    Keys are taken in their order: the first for test, the next for validation, all others for
    training, each split as many as bring it nearest to its share of the rows. So a hash as
    key draws at random, and a time with its sign turned takes the last rows for test.

    Args:
        strata: Classes, of each of which every split gets its share; a key whose rows have several
            counts for the lowest. None: no such care.
        at_least_one: Whether a split whose share is above zero has a key in any case.
    """
    units, of_row, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    of_row = of_row.reshape(-1)
    split_of_unit = np.full(len(units), TRAIN, dtype=np.int8)
    stratum = np.zeros(len(units), dtype=np.int64)
    if strata is not None:
        stratum = np.full(len(units), np.iinfo(np.int64).max)
        np.minimum.at(stratum, of_row, strata)
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        total = sizes[members].sum()
        for split, share in ((TEST, test_fraction), (VALIDATION, validation_fraction)):
            left = members[split_of_unit[members] == TRAIN]
            middle = np.cumsum(sizes[left]) - sizes[left] / 2
            num_taken = int((middle <= share * total).sum())
            if at_least_one and share > 0:
                num_taken = max(num_taken, 1)
            split_of_unit[left[:num_taken]] = split
    return split_of_unit[of_row]
