"""Mark the ends of snakes so that the places of the two discs say little about the label.

The ends of one snake lie elsewhere than the first end of one and the far end of another: nearer to
each other at some sizes, farther apart at others. Images therefore come in pairs of opposite labels
that agree in which snake begins (the first was there when the second grew), in the distance between
the discs, and in the distance of either from the centre. An image for which there is no such
partner is left out.
"""

from collections import defaultdict

import numpy as np
from jaxtyping import Float32, Int64
from numpy.random import Generator

# Of a distance, as a share of the image: fine enough to leave no trace, coarse enough for partners.
_STEPS_BETWEEN = 24
_STEPS_TO_FAR_END = 12
_STEPS_TO_FIRST_END = 8


def pair_images(
    rng: Generator, tips: Float32[np.ndarray, "images 2 2 2"], *, size: int
) -> Int64[np.ndarray, "pairs 2 3"]:
    """Choose for each image which snake's first end and which snake's far end are marked.

    Args:
        tips: Places (x, y) of the first and the far end of both long snakes.

    Returns:
        The image and the two snakes; these are the same in one image of each pair. Which of the two
        comes first is drawn.
    """
    alike = _places_alike(tips, size=size)
    # (begins, ends) of an image, in an order of its own.
    choices = np.array([(begins, ends) for begins in (0, 1) for ends in (0, 1)])
    orders = rng.permuted(np.tile(np.arange(4), (len(tips), 1)), axis=1)
    waiting: defaultdict[tuple[int, bool], list[tuple[int, int, int]]] = defaultdict(list)
    is_free = np.ones(len(tips), dtype=bool)
    pairs = []
    for image, order in enumerate(orders):
        marks = [(image, int(begins), int(ends)) for begins, ends in choices[order]]
        for mark in marks:
            partners = waiting[int(alike[mark]), mark[1] != mark[2]]
            while partners and not is_free[partners[-1][0]]:
                partners.pop()
            if partners:
                pairs.append((partners.pop(), mark))
                is_free[[pair[0] for pair in pairs[-1]]] = False
                break
        else:
            for mark in marks:
                waiting[int(alike[mark]), mark[1] == mark[2]].append(mark)
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2, 3)
    is_swapped = rng.integers(0, 2, size=len(found)) == 1
    found[is_swapped] = found[is_swapped, ::-1]
    return found


def _places_alike(
    tips: Float32[np.ndarray, "images 2 2 2"], *, size: int
) -> Int64[np.ndarray, "images 2 2"]:
    """Number the places of discs, [image, begins, ends]; what looks alike has the same number."""
    first, far = tips[:, :, None, 0], tips[:, None, :, 1]
    centre = np.float32((size - 1) / 2)
    number = np.arange(2)[:, None]
    for offset, num_steps in (
        (far - first, _STEPS_BETWEEN),
        (far - centre, _STEPS_TO_FAR_END),
        (first - centre, _STEPS_TO_FIRST_END),
    ):
        number = number * size + _steps(offset, size / num_steps)
    return number


def _steps(offset: Float32[np.ndarray, "*n 2"], step: float) -> Int64[np.ndarray, "*n"]:
    length = np.sqrt(np.square(offset[..., 0]) + np.square(offset[..., 1]))
    return np.floor(length / np.float32(step)).astype(np.int64)
