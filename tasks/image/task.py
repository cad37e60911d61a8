"""Image: classify a CIFAR-10 picture read pixel by pixel (Krizhevsky, 2009; Tay et al., 2021).

1,024 grey values, row after row   ->   3 (cat)
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from tasks.errors import DataError, check_rows
from tasks.floors import Floor, add_floors
from tasks.floors.pictures import predict_by_means, predict_by_pixels
from tasks.image.cifar import read_cifar_batch
from tasks.sources.content import content_of
from tasks.sources.hub import load_from_hub
from tasks.sources.local import check_source, locate
from tasks.splits import check_fractions
from tasks.store.once import prepare_once
from tasks.store.rows import TokenRows, open_split
from tasks.store.write import Chunk, Contents, Split

NUM_CLASSES = 10

_NUM_PIXELS = 32 * 32
_ROWS_PER_CHUNK = 1000
_FOLDER = "cifar-10-batches-py"
_MARKER = "test_batch"
_FILES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}

_FLOORS = {
    "pixels": Floor(
        "logistic regression on the grey values",
        partial(predict_by_pixels, size=32, strength=0.01),
        max_rows=45_000,
    ),
    "means": Floor(
        "200 rounds of boosted trees on the 64 means of blocks of 4 x 4 pixels",
        partial(predict_by_means, size=32, block=4),
        max_rows=45_000,
    ),
}

Pictures = tuple[UInt8[np.ndarray, "rows 32 32 3"], Integer[np.ndarray, "rows"]]


def prepare(
    data_dir: Path,
    *,
    source: str,
    source_dir: str | None,
    hub_name: str,
    source_rows: Mapping[str, int],
    validation_fraction: float,
) -> Path:
    """Fetch the pictures, turn them grey and hold a part of the training ones out.

    Sources list these in orders of their own: a hash of each draws the part.

    Args:
        source: "hub", or "local" for a folder that holds cifar-10-batches-py/ or is it.
        source_rows: Pictures expected of the source, to notice an incomplete one.
    """
    check_source(source, ("hub", "local"))
    check_rows("task.source_rows", source_rows, splits=("train", "test"))
    check_fractions(validation_fraction=validation_fraction)

    def read(split: str) -> Pictures:
        if source == "hub":
            pictures, labels = _read_hub(hub_name, split)
        else:
            pictures, labels = _read_folder(source_dir, data_dir=data_dir, split=split)
        if len(labels) != source_rows[split]:
            raise DataError(
                f"{len(labels)} {split} pictures found, task.source_rows.{split} says "
                f"{source_rows[split]}"
            )
        return pictures, labels

    content = hub_name
    if source == "local":
        content = content_of(
            source_dir,
            data_dir=data_dir,
            marker=_MARKER,
            parents=[_FOLDER],
            patterns=[name for names in _FILES.values() for name in names],
        )
    folder = prepare_once(
        data_dir / "image",
        variant="grey",
        parameters={
            "source": content,
            "source_rows": dict(source_rows),
            "validation_fraction": validation_fraction,
            "order": "content",
        },
        contents=lambda: Contents(_splits(read, validation_fraction=validation_fraction)),
        num_classes=NUM_CLASSES,
        paired=False,
        num_bytes=sum(source_rows.values()) * (_NUM_PIXELS + 16),
    )
    return add_floors(folder, _FLOORS)


def load(
    folder: Path, split: str, *, vocab_size: int, append_eos: bool, zero_is_padding: bool
) -> TokenRows:
    """Open a split; the token id of a grey value is the value plus 1.

    Args:
        zero_is_padding: Whether ids are the grey values themselves and black pixels are masked as
            padding, as in the code of Long Range Arena.
    """
    return open_split(
        folder,
        split,
        first_id=0 if zero_is_padding else 1,
        vocab_size=vocab_size,
        append_eos=append_eos,
        zero_is_padding=zero_is_padding,
    )


def to_grey(
    rgb: UInt8[np.ndarray, "*pictures 3"],
) -> UInt8[np.ndarray, "*pictures"]:
    r"""Return the luma of ITU-R BT.601 in the integer arithmetic of Pillow's convert("L").

    .. math:: L = \lfloor (19595 R + 38470 G + 7471 B + 2^{15}) / 2^{16} \rfloor
    """
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((rgb @ weights + 2**15) >> 16).astype(np.uint8)


def _splits(read: Callable[[str], Pictures], *, validation_fraction: float) -> Iterator[Split]:
    pictures, labels = by_content(*read("train"))
    num_train = len(labels) - round(validation_fraction * len(labels))
    yield _split("train", pictures[:num_train], labels[:num_train])
    yield _split("validation", pictures[num_train:], labels[num_train:])
    yield _split("test", *read("test"))


def by_content(pictures: np.ndarray, labels: np.ndarray) -> Pictures:
    """Order pictures by a hash of their pixels and label, whatever order they come in."""
    hashes = [
        blake2b(picture.tobytes() + b"%d" % label, digest_size=16).digest()
        for picture, label in zip(pictures, labels.tolist(), strict=True)
    ]
    order = np.argsort(np.array(hashes, dtype="S16"), kind="stable")
    return pictures[order], labels[order]


def _split(name: str, pictures: np.ndarray, labels: np.ndarray) -> Split:
    return Split(name, num_rows=len(labels), parts=[partial(_encode, pictures, labels)])


def _encode(pictures: np.ndarray, labels: np.ndarray) -> Iterator[Chunk]:
    for start in range(0, len(labels), _ROWS_PER_CHUNK):
        rows = slice(start, start + _ROWS_PER_CHUNK)
        grey = to_grey(pictures[rows])
        yield Chunk(grey.ravel(), np.full(len(grey), _NUM_PIXELS), labels[rows])


def _read_hub(name: str, split: str) -> Pictures:
    hint = f"put the folder {_FOLDER}/ somewhere and give task.source=local task.source_dir=<it>"
    rows: Any = load_from_hub(name, split, columns=("img", "label"), hint=hint)
    pictures = [np.asarray(picture) for picture in rows["img"]]
    for number, picture in enumerate(pictures):
        if picture.shape != (32, 32, 3) or picture.dtype != np.uint8:
            raise DataError(
                f"{name}, row {number} of {split} is of shape {picture.shape} and type "
                f"{picture.dtype}; it must be a picture of 32 x 32 coloured pixels"
            )
    labels = np.array(rows["label"])
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{name} has labels as {labels[0]!r} in {split}; they must be whole numbers"
        )
    return np.stack(pictures), labels


def _read_folder(source_dir: str | None, *, data_dir: Path, split: str) -> Pictures:
    root = locate(source_dir, data_dir=data_dir, marker=_MARKER, parents=[_FOLDER])
    batches = [read_cifar_batch(root / name) for name in _FILES[split]]
    planes = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in batches])
    return np.moveaxis(planes, 1, -1), labels
