"""Measure floors once, when a task is prepared, and keep them in its manifest."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from jaxtyping import Integer

from tasks.floors.sample import Sample, draw_sample
from tasks.store.manifest import MANIFEST, read_manifest, write_json
from tasks.store.once import lock_of
from tasks.store.write import progress_bar

# The accuracy over fewer rows has a standard error above 5 points.
_LEAST_TEST_ROWS = 100
# Why a floor may fail on one machine, at one time, and be measured on another.
_OF_THE_MACHINE = (MemoryError, ImportError, OSError)

_logger = logging.getLogger(__name__)


class Floor(NamedTuple):
    """A predictor that is fitted on training rows and scored on the test split.

    Attributes:
        recipe: The predictor in words; what was measured by another recipe is measured again.
        predict: Fits to the first sample and returns a label for each row of the second.
        max_rows: Rows drawn of either split, if it has more.
    """

    recipe: str
    predict: Callable[[Sample, Sample], Integer[np.ndarray, "rows"]]
    max_rows: int


class ExactFloor(NamedTuple):
    """What a predictor reaches on average over the law of a generated task, not over its rows."""

    recipe: str
    accuracy: float


def state_floors(folder: Path, floors: Mapping[str, ExactFloor]) -> Path:
    """Write exact floors into the manifest of a prepared folder; return the folder."""
    stated = {name: floor._asdict() for name, floor in floors.items()}
    if read_manifest(folder).get("floors") != stated and os.access(folder, os.W_OK):
        with FileLock(lock_of(folder)):
            write_json(folder / MANIFEST, read_manifest(folder) | {"floors": stated})
    return folder


def add_floors(folder: Path, floors: Mapping[str, Floor]) -> Path:
    """Measure the floors that the manifest of a prepared folder lacks; return the folder.

    A floor that cannot be measured is logged and left out: the data are whole without it, and the
    manifest has its recipe among the unmeasured ones, so that it is tried once, unless what failed
    was the machine. All are left out where the test split has too few rows to tell, or where the
    folder cannot be written to.
    """
    if not _missing(folder, floors):
        return folder
    with FileLock(lock_of(folder)):
        missing = _missing(folder, floors)
        measured, unmeasured = {}, {}
        with progress_bar() as bar:
            task = bar.add_task("floors", total=len(missing))
            for name, floor in missing.items():
                try:
                    measured[name] = _measure(folder, floor)
                # Whatever is wrong with a floor, the data set is complete.
                except Exception as error:
                    _logger.warning("%s: the floor %s was not measured: %s", folder, name, error)
                    if not isinstance(error, _OF_THE_MACHINE):
                        unmeasured[name] = {"recipe": floor.recipe, "reason": str(error)}
                bar.advance(task)
        if missing:
            manifest = read_manifest(folder)
            known = {name: manifest.get("floors", {}).get(name) for name in floors} | measured
            known = {name: floor for name, floor in known.items() if floor}
            failed = manifest.get("unmeasured", {}).items()
            unmeasured |= {name: floor for name, floor in failed if name not in missing}
            write_json(folder / MANIFEST, manifest | {"floors": known, "unmeasured": unmeasured})
    return folder


def _missing(folder: Path, floors: Mapping[str, Floor]) -> dict[str, Floor]:
    manifest = read_manifest(folder)
    if manifest["splits"]["test"]["rows"] < _LEAST_TEST_ROWS:
        return {}
    if not os.access(folder, os.W_OK):
        return {}
    tried = {
        (name, known["recipe"])
        for key in ("floors", "unmeasured")
        for name, known in manifest.get(key, {}).items()
    }
    return {name: floor for name, floor in floors.items() if (name, floor.recipe) not in tried}


def _measure(folder: Path, floor: Floor) -> dict[str, Any]:
    train, test = (
        draw_sample(folder, split, max_rows=floor.max_rows) for split in ("train", "test")
    )
    is_right = floor.predict(train, test) == test.labels
    return {
        "accuracy": float(is_right.mean()),
        "recipe": floor.recipe,
        "num_train_rows": len(train.labels),
        "num_test_rows": len(test.labels),
    }
