"""Pathfinder: are the two dots on one dashed path? (Linsley et al., 2018; Tay et al., 2021).

32 x 32 (64 x 64, Path-X: 128 x 128) grey values, row after row   ->   1
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import DataError, check_generator, check_rows, check_wholes, one_of
from tasks.floors import Floor, add_floors
from tasks.floors.pictures import predict_by_dots, predict_by_pixels, predict_by_statistics
from tasks.image.task import load as load
from tasks.pathfinder.generate import generate_pathfinder
from tasks.pathfinder.release import DIFFICULTY, Picture, list_pictures, read_picture
from tasks.pathfinder.style import STYLES
from tasks.sources.content import content_of
from tasks.sources.local import RELEASE_FOLDERS, check_source, locate
from tasks.store.manifest import SPLITS
from tasks.store.once import prepare_once
from tasks.store.write import Chunk, Contents, Split

NUM_CLASSES = 2

# Raise it, and task.generator_version in YAML, when a seed gives other bytes than before: old
# folders are then no longer used, and runs on the new data are new runs.
_GENERATOR = 2
# An interrupted preparation loses one part at most, which takes about half a minute.
_ROWS_PER_PART = 4096
_MAX_FLOOR_PIXELS = 2**26

_logger = logging.getLogger(__name__)


def prepare(
    data_dir: Path,
    *,
    source: str,
    source_dir: str | None,
    size: int,
    num_examples: Mapping[str, int],
    seed: int,
    generator_version: int,
    num_workers: int,
) -> Path:
    """Draw the pictures, or read those of Long Range Arena.

    Args:
        source: "generate", or "lra_release" for a folder that holds pathfinder<size>/ or is it.
        seed: Of the generator, or of the order in which released pictures are split.
        generator_version: Which pictures a seed stands for; the one that there is.
    """
    check_source(source, ("generate", "lra_release"))
    one_of("task.size", size, STYLES)
    check_rows("task.num_examples", num_examples, splits=SPLITS)
    check_wholes(num_workers=num_workers)
    check_wholes(generator_seed=seed, least=0)
    parameters: dict[str, Any] = {"size": size, "num_examples": dict(num_examples), "seed": seed}
    if source == "generate":
        check_generator(generator_version, there_is=_GENERATOR)
        parameters["generator"] = _GENERATOR
        splits = partial(_generated_splits, size=size, seed=seed, num_workers=num_workers)
    else:
        marker = f"pathfinder{size}/{DIFFICULTY}"
        files = {"data_dir": data_dir, "marker": marker, "parents": RELEASE_FOLDERS}
        patterns = [f"{marker}/metadata/*.npy", f"{marker}/imgs/*/*.png"]
        parameters["source"] = content_of(source_dir, **files, patterns=patterns)
        splits = partial(_released_splits, source_dir, **files, size=size, seed=seed)
    folder = prepare_once(
        data_dir / f"pathfinder{size}",
        variant=source,
        parameters=parameters,
        contents=lambda: Contents(splits(num_examples=num_examples)),
        num_classes=NUM_CLASSES,
        paired=False,
        num_bytes=sum(num_examples.values()) * (size**2 + 16),
    )
    return add_floors(folder, _floors(size))


def _floors(size: int) -> dict[str, Floor]:
    max_rows = min(20_000, _MAX_FLOOR_PIXELS // size**2)
    return {
        "pixels": Floor(
            "logistic regression on the grey values",
            partial(predict_by_pixels, size=size, strength=0.01),
            max_rows=max_rows,
        ),
        "statistics": Floor(
            "boosted trees on ink, its square, numbers of black, lit and white pixels and of lit "
            "components, and the first two moments of the ink in x and y",
            partial(predict_by_statistics, size=size),
            max_rows=max_rows,
        ),
        "dots": Floor(
            "boosted trees on the places of the two dots, their distances from the centre and "
            "from each other",
            partial(predict_by_dots, size=size, radius=STYLES[size].marker_radius),
            max_rows=max_rows,
        ),
    }


def _generated_splits(
    *, num_examples: Mapping[str, int], size: int, seed: int, num_workers: int
) -> Iterator[Split]:
    for number, name in enumerate(SPLITS):
        num_rows = num_examples[name]
        parts: list[Callable[[], Iterable[Chunk]]] = []
        for part, start in enumerate(range(0, num_rows, _ROWS_PER_PART)):
            # Each part has a seed of its own, so that it can be drawn without those before it.
            part_seed = np.random.SeedSequence((seed, number, part)).generate_state(1, np.uint64)
            parts.append(
                partial(
                    _draw,
                    min(_ROWS_PER_PART, num_rows - start),
                    size=size,
                    seed=int(part_seed[0]),
                    num_workers=num_workers,
                )
            )
        yield Split(name, num_rows=num_rows, parts=parts)


def _draw(num_rows: int, *, size: int, seed: int, num_workers: int) -> Iterator[Chunk]:
    for pictures, labels in generate_pathfinder(
        num_rows, size=size, seed=seed, num_workers=num_workers
    ):
        yield Chunk(pictures.ravel(), np.full(len(labels), size**2), labels)


def _released_splits(
    source_dir: str | None,
    *,
    size: int,
    seed: int,
    num_examples: Mapping[str, int],
    **files: Any,
) -> Iterator[Split]:
    folder = locate(source_dir, **files) / files["marker"]
    pictures = list_pictures(folder)
    if len(pictures) != sum(num_examples.values()):
        raise DataError(
            f"{folder} lists {len(pictures)} pictures, "
            f"task.num_examples says {sum(num_examples.values())}"
        )
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(pictures))
    start = 0
    for name in SPLITS:
        listed = [pictures[i] for i in order[start : start + num_examples[name]]]
        start += num_examples[name]
        usable = [picture for picture in listed if picture.path.stat().st_size]
        num_left_out = len(listed) - len(usable)
        if num_left_out:
            _logger.warning("%s: %d empty pictures are left out", name, num_left_out)
        yield Split(
            name,
            num_rows=len(usable),
            parts=[
                partial(_read, usable[i : i + _ROWS_PER_PART], size=size)
                for i in range(0, len(usable), _ROWS_PER_PART)
            ],
            num_left_out=num_left_out,
        )


def _read(pictures: list[Picture], *, size: int) -> Iterator[Chunk]:
    grey = np.stack([read_picture(picture.path, size=size) for picture in pictures])
    labels = np.array([picture.label for picture in pictures])
    yield Chunk(grey.ravel(), np.full(len(labels), size**2), labels)
