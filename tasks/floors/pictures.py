"""Floors of pictures: single pixels, global statistics, and where the dots of Pathfinder are."""

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from tasks.floors.models import boosted, linear
from tasks.floors.sample import Sample

_PICTURES_AT_ONCE = 1024
# A picture is lit where it is brighter than this.
_LIT = 40


def predict_by_pixels(
    train: Sample, test: Sample, *, size: int, strength: float
) -> Int64[np.ndarray, "rows"]:
    """Classify by a linear model of the pixels."""
    pixels = [
        pictures_of(sample, size=size).reshape(-1, size * size).astype(np.float32) / 255 - 0.5
        for sample in (train, test)
    ]
    return linear(pixels[0], train.labels, pixels[1], strength=strength)


def predict_by_means(
    train: Sample, test: Sample, *, size: int, block: int
) -> Int64[np.ndarray, "rows"]:
    """Classify by boosted trees on the means of square blocks, each a few pixels wide."""
    means = [
        pictures_of(sample, size=size)
        .reshape(-1, size // block, block, size // block, block)
        .mean(axis=(2, 4))
        .reshape(-1, (size // block) ** 2)
        for sample in (train, test)
    ]
    return boosted(
        means[0], train.labels, means[1], num_rounds=200, learning_rate=0.1, max_leaves=31
    )


def predict_by_statistics(train: Sample, test: Sample, *, size: int) -> Int64[np.ndarray, "rows"]:
    """Classify by boosted trees on what a picture has in all: ink, its spread, components."""
    features = [_in_parts(statistics, sample, size=size) for sample in (train, test)]
    return boosted(features[0], train.labels, features[1])


def predict_by_dots(
    train: Sample, test: Sample, *, size: int, radius: float
) -> Int64[np.ndarray, "rows"]:
    """Classify by boosted trees on the places of the two dots, whatever lies between them."""
    features = [
        _in_parts(lambda pictures: dots(pictures, radius=radius), sample, size=size)
        for sample in (train, test)
    ]
    return boosted(features[0], train.labels, features[1])


def pictures_of(sample: Sample, *, size: int) -> UInt8[np.ndarray, "rows size size"]:
    """Return the grey values of each row."""
    starts = sample.offsets[sample.documents]
    # A copy of the rows alone: a whole split may not fit into memory.
    return np.stack([sample.items[start : start + size * size] for start in starts]).reshape(
        -1, size, size
    )


def statistics(pictures: UInt8[np.ndarray, "n size size"]) -> Float64[np.ndarray, "n features"]:
    """Count ink, dark, lit and white pixels and lit components; measure where the ink lies."""
    from scipy import ndimage

    lit = pictures > _LIT
    # Neighbours within a picture, corners included; pictures are no neighbours.
    neighbours = np.zeros((3, 3, 3), dtype=int)
    neighbours[1] = 1
    components: tuple[np.ndarray, int] = ndimage.label(lit, neighbours)  # type: ignore[assignment]
    # Numbers are given in the order of the pictures.
    last = np.maximum.accumulate(components[0].max(axis=(1, 2)))
    ink = pictures.sum(axis=(1, 2), dtype=np.float64)
    place = np.arange(pictures.shape[1]) - (pictures.shape[1] - 1) / 2
    total = np.maximum(ink, 1)
    moments = [
        (pictures.sum(axis=axis, dtype=np.float64) @ place**power) / total
        for axis in (1, 2)
        for power in (1, 2)
    ]
    columns = [
        ink,
        np.square(pictures, dtype=np.float64).sum(axis=(1, 2)),
        (pictures == 0).sum(axis=(1, 2)),
        lit.sum(axis=(1, 2)),
        (pictures == 255).sum(axis=(1, 2)),
        np.diff(last, prepend=0),
        *moments,
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def dots(
    pictures: UInt8[np.ndarray, "n size size"], *, radius: float
) -> Float64[np.ndarray, "n features"]:
    """Find the two brightest discs of a radius; return their places and distances.

    The disc nearer to the centre comes first: x, y and distance from the centre of each, and the
    distance between the two.
    """
    found = find_discs(pictures, radius=radius)
    offset = found - (pictures.shape[1] - 1) / 2
    from_centre = np.hypot(offset[..., 0], offset[..., 1])
    order = np.argsort(from_centre, axis=1, kind="stable")
    offset = np.take_along_axis(offset, order[..., None], axis=1)
    from_centre = np.take_along_axis(from_centre, order, axis=1)
    between = np.hypot(*(offset[:, 1] - offset[:, 0]).T)
    return np.concatenate([offset.reshape(len(offset), 4), from_centre, between[:, None]], axis=1)


def find_discs(
    pictures: UInt8[np.ndarray, "n size size"], *, radius: float
) -> Float64[np.ndarray, "n 2 2"]:
    """Return x, y of the brightest disc of a radius, and of the brightest one outside it."""
    from scipy import ndimage

    reach = int(radius) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (np.hypot(y, x) <= radius).astype(np.float32)
    brightness: Float32[np.ndarray, "n size size"] = ndimage.correlate(
        pictures.astype(np.float32), disc[None], mode="constant"
    )
    size = pictures.shape[1]
    y, x = np.mgrid[:size, :size]
    found = []
    for _ in range(2):
        row, column = np.divmod(brightness.reshape(len(pictures), -1).argmax(axis=1), size)
        found.append(np.stack([column, row], axis=1))
        distance = np.hypot(y - row[:, None, None], x - column[:, None, None])
        brightness[distance <= 2 * radius + 1] = -1
    return np.stack(found, axis=1).astype(np.float64)


def _in_parts(function, sample: Sample, *, size: int) -> Float64[np.ndarray, "rows features"]:
    pictures = pictures_of(sample, size=size)
    starts = range(0, len(pictures), _PICTURES_AT_ONCE)
    return np.concatenate([function(pictures[i : i + _PICTURES_AT_ONCE]) for i in starts])
