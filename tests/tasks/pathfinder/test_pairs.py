"""Pairs of opposite labels leave little of the label in the places of the discs."""

import numpy as np

from tasks.floors.models import boosted
from tasks.pathfinder.pairs import _places_alike, pair_images

SIZE = 32


def draw_tips(num_images: int) -> np.ndarray:
    """Snakes that end near their beginning, on the near side of the other's: a gross leak."""
    rng = np.random.default_rng(3)
    first = rng.uniform(10, 22, (num_images, 2, 1, 2))
    far = first + rng.normal(0, 4, (num_images, 2, 1, 2))
    return np.concatenate([first, far], axis=2).clip(1, SIZE - 2).astype(np.float32)


def places(tips, image, begins, ends):
    marked = np.stack([tips[image, begins, 0], tips[image, ends, 1]], axis=1) - (SIZE - 1) / 2
    from_centre = np.hypot(marked[..., 0], marked[..., 1])
    between = np.hypot(*(marked[:, 1] - marked[:, 0]).T)
    return np.concatenate([marked.reshape(-1, 4), from_centre, between[:, None]], axis=1)


def leak(features, labels) -> float:
    half = len(labels) // 2
    return np.mean(boosted(features[:half], labels[:half], features[half:]) == labels[half:])


def test_places_say_little_of_the_label():
    tips = draw_tips(6000)
    rng = np.random.default_rng(3)
    begins, ends = rng.integers(0, 2, (2, len(tips)))
    labels = (begins == ends).astype(int)
    before = leak(places(tips, np.arange(len(tips)), begins, ends), labels)
    assert before > 0.65

    image, begins, ends = pair_images(rng, tips, size=SIZE).reshape(-1, 3).T
    labels = (begins == ends).astype(int)
    # Three quarters of the advantage over a coin are gone, within four standard errors.
    standard_error = 0.5 / np.sqrt(len(labels) / 2)
    after = leak(places(tips, image, begins, ends), labels)
    assert after - 0.5 < (before - 0.5) / 4 + 4 * standard_error


def test_partners_look_alike_and_have_opposite_labels():
    tips = draw_tips(500)
    pairs = pair_images(np.random.default_rng(3), tips, size=SIZE)
    labels = pairs[..., 1] == pairs[..., 2]
    assert (labels.sum(axis=1) == 1).all()
    assert 0.4 < labels[:, 0].mean() < 0.6
    alike = _places_alike(tips, size=SIZE)[tuple(np.moveaxis(pairs, 2, 0))]
    assert (alike[:, 0] == alike[:, 1]).all()
    assert np.unique(pairs[..., 0]).size == pairs[..., 0].size > 350


def test_an_image_without_a_partner_is_left_out():
    pairs = pair_images(np.random.default_rng(3), draw_tips(1), size=SIZE)
    assert pairs.shape == (0, 2, 3)
