"""Generate Pathfinder (Linsley et al., 2018): do the two discs lie on the same dashed contour?

Each image shows two long snakes of paddles and a few short distractors. One disc marks the first
end of a long snake; the other marks the far end of the same snake (label 1) or of the other one
(label 0). Different snakes keep farther apart than the paddles of one snake, so that every label
can be read off its image. The places of the discs say little about it: images come in pairs of
opposite labels whose discs are about equally far apart and equally far from the centre.

Arithmetic is restricted to what IEEE 754 rounds in one way only, so that a seed gives the same
bytes on any machine.
"""

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from itertools import count

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.random import PCG64, Generator, SeedSequence

from tasks.parallel import ordered_map
from tasks.pathfinder.pairs import pair_images
from tasks.pathfinder.snakes import draw_paddles
from tasks.pathfinder.style import STYLES, Style

_IMAGES_PER_CHUNK = 256
# Of a paddle's contrast: 2 to 4 of 255 grey values.
_RINGING = 0.008
_RING_BEGINS = 2

Pictures = tuple[UInt8[np.ndarray, "n size size"], UInt8[np.ndarray, "n"]]


def generate_pathfinder(
    num_examples: int, *, size: int, seed: int, num_workers: int
) -> Iterator[Pictures]:
    """Yield chunks of distinct grey images and their labels, each label once in every two images.

    The stream depends on the seed alone, not on num_workers, and a shorter one is the beginning of
    a longer one.

    Raises:
        ValueError: If size is not one of 32, 64 and 128.
    """
    if size not in STYLES:
        raise ValueError(f"size is {size}; it must be one of {', '.join(map(str, STYLES))}")
    sample = partial(_sample_chunk, seed=seed, style=STYLES[size])
    return _take_distinct(ordered_map(sample, count(), num_workers=num_workers), num_examples)


def _take_distinct(chunks: Iterator[Pictures], num_examples: int) -> Iterator[Pictures]:
    seen: set[bytes] = set()
    while num_examples > 0:
        images, labels = next(chunks)
        is_fresh = np.zeros(len(images), dtype=bool)
        for i, image in enumerate(images):
            digest = blake2b(image.tobytes(), digest_size=16).digest()
            is_fresh[i] = digest not in seen
            seen.add(digest)
        # Two images of opposite labels go together, or the labels would lose their balance.
        keep = np.flatnonzero(is_fresh.reshape(-1, 2).all(axis=1).repeat(2))[:num_examples]
        num_examples -= keep.size
        yield images[keep], labels[keep]


def _sample_chunk(chunk: int, *, seed: int, style: Style) -> Pictures:
    # The bit generator is named because numpy may change its default one.
    rng = Generator(PCG64(SeedSequence(seed, spawn_key=(chunk,))))
    num_images = _IMAGES_PER_CHUNK // len(style.margins)
    paddles, pairs = [], []
    # Partners have one margin, for it shows in the gaps.
    for place, margin in enumerate(style.margins):
        drawn = draw_paddles(rng, num_images=num_images, style=style, margin=margin)
        found = pair_images(rng, drawn[:, *_tips(style)], size=style.size)
        found[..., 0] += place * num_images
        paddles.append(drawn)
        pairs.append(found)
    # A first pair of each margin, a second one of each, ...
    turn = np.argsort(np.concatenate([np.arange(len(found)) for found in pairs]), kind="stable")
    image, begins, ends = np.concatenate(pairs)[turn].reshape(-1, 3).T
    drawn = np.concatenate(paddles)[image]
    tips = drawn[:, *_tips(style)]
    row = np.arange(len(image))
    markers = np.stack([tips[row, begins, 0], tips[row, ends, 1]], axis=1)
    return _render(drawn, markers, style=style), (begins == ends).astype(np.uint8)


def _tips(style: Style) -> tuple[Int64[np.ndarray, "2 2"], Int64[np.ndarray, "2 2"]]:
    """Index the paddles of both long snakes, [snake, end], that have an end, and that end."""
    length = style.num_target_paddles
    return np.array([[0, length - 1], [length, 2 * length - 1]]), np.array([[0, 1], [0, 1]])


def _render(
    paddles: Float32[np.ndarray, "n paddles 2 2"],
    markers: Float32[np.ndarray, "n 2 2"],
    *,
    style: Style,
) -> UInt8[np.ndarray, "n size size"]:
    """Draw paddles and discs, brightest on top, antialiased by their distance to each pixel."""
    canvas = np.zeros((len(paddles), style.size, style.size), dtype=np.float32)
    for i in range(paddles.shape[1]):
        is_target = i < 2 * style.num_target_paddles
        contrast = style.target_contrast if is_target else style.distractor_contrast
        _stroke(
            canvas,
            paddles[:, i],
            width=style.thickness,
            contrast=contrast,
            ringing=style.ringing,
        )
    for i in range(2):
        centre = markers[:, [i, i]]
        _stroke(canvas, centre, width=2 * style.marker_radius, contrast=1.0, ringing=0.0)
    return np.rint(255 * np.minimum(canvas, 1)).astype(np.uint8)


def _stroke(
    canvas: Float32[np.ndarray, "n size size"],
    ends: Float32[np.ndarray, "n 2 2"],
    *,
    width: float,
    contrast: float,
    ringing: float,
) -> None:
    """Draw a line with round ends into each image, where it is brighter than what is there.

    Args:
        ringing: Distance from the line up to which its faint ring reaches; 0 for none.
    """
    size = canvas.shape[1]
    direction = ends[:, 1] - ends[:, 0]
    squared_length = (direction * direction).sum(axis=1)
    reach = int(np.sqrt(squared_length.max()) / 2 + max(width / 2, ringing)) + 2
    window = np.arange(2 * reach + 1)
    corner = np.floor(ends.mean(axis=1)).astype(np.int64) - reach
    # A window that would leave the image moves inwards.
    corner = np.clip(corner, 0, size - window.size)
    x, y = (corner[:, [0]] + window)[:, None], (corner[:, [1]] + window)[:, :, None]

    from_x, from_y = x - ends[:, 0, 0, None, None], y - ends[:, 0, 1, None, None]
    along_x, along_y = direction[:, 0, None, None], direction[:, 1, None, None]
    share = (from_x * along_x + from_y * along_y) / np.maximum(squared_length, 1)[:, None, None]
    share = np.clip(share, 0, 1)
    distance = np.sqrt((from_x - share * along_x) ** 2 + (from_y - share * along_y) ** 2)
    coverage = np.clip((width + 1) / 2 - distance, 0, min(width, 1))
    coverage[(distance >= _RING_BEGINS) & (distance < ringing)] = _RINGING

    image = np.arange(len(canvas))[:, None, None]
    canvas[image, y, x] = np.maximum(canvas[image, y, x], contrast * coverage)
