"""Pathfinder: labels traced in the images, and the geometry and statistics of the scenes."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import correlate, distance_transform_edt, zoom
from scipy.ndimage import label as label_components

from tasks.floors.models import boosted
from tasks.floors.pictures import dots, statistics
from tasks.pathfinder.generate import _take_distinct, generate_pathfinder
from tasks.pathfinder.snakes import draw_paddles
from tasks.pathfinder.style import STYLES

# Midway between the dark gap of one snake and the dark strip between two, where pixels of 40 and
# more are lit: (gap + clearance) / 2, less twice the distance from a centre line to its last light.
JUMP = {32: 1.7, 64: 1.4, 128: 5.1}
# The disc's radius in long-range-arena's lra_benchmarks/data/pathfinder.py, and the share of pixels
# no brighter than 10 in images of drewlinsley/pathfinder. Its resampling rings, so that fewer are
# black: measured on 100 of its images at 32 and 12 at 128 (standard errors 0.004 and 0.001). At 64
# an estimate, from images of ours drawn as it draws (0.692) and what these lack at 32 and 128.
RADIUS = {32: 1.5, 64: 2.5, 128: 3.0}
DARK_SHARE = {32: 0.840, 64: 0.877, 128: 0.938}
BLACK_SHARE = {32: 0.653, 64: 0.72, 128: 0.862}
SIZES = pytest.mark.parametrize("size", [32, 64, 128])
NUM_EXAMPLES = 200


def join(chunks):
    images, labels = zip(*chunks, strict=True)
    return np.concatenate(images), np.concatenate(labels)


@cache
def sample(size):
    return join(generate_pathfinder(NUM_EXAMPLES, size=size, seed=1, num_workers=1))


def find_discs(image, radius, *, count):
    """Return brightness and centre of the brightest discs, each outside those before it."""
    reach = int(radius) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (np.hypot(y, x) <= radius).astype(float)
    brightness = correlate(image.astype(float), disc / disc.sum(), mode="constant")
    y, x = np.indices(image.shape)
    found = []
    for _ in range(count):
        row, column = np.unravel_index(brightness.argmax(), image.shape)
        found.append((brightness[row, column], (row, column)))
        brightness[np.hypot(y - row, x - column) <= 2 * radius + 1] = 0
    return found


def trace(image, start, end, *, jump):
    """Say whether a walk over lit ground, with jumps up to a length, leads from start to end."""
    scale = 4
    fine = zoom(image.astype(float), scale, order=1, grid_mode=True, mode="nearest")
    reachable = distance_transform_edt(fine < 40) / scale <= jump / 2
    components, _ = label_components(reachable)
    start, end = (tuple(scale * i + scale // 2 for i in point) for point in (start, end))
    return components[start] == components[end]


LARGE_SIZES_SLOW = pytest.mark.parametrize(
    "size", [32, *(pytest.param(size, marks=pytest.mark.slow) for size in (64, 128))]
)


@LARGE_SIZES_SLOW
def test_tracer_reads_the_labels(size):
    traced = []
    images, labels = sample(size)
    for image in images:
        (_, start), (_, end) = find_discs(image, RADIUS[size], count=2)
        traced.append(trace(image, start, end, jump=JUMP[size]))
    assert np.mean(traced == labels) >= 0.995


@LARGE_SIZES_SLOW
def test_exactly_two_markers_are_present(size):
    discs = [find_discs(image, RADIUS[size], count=3) for image in sample(size)[0]]
    brightness = np.array([[value for value, _ in found] for found in discs])
    # A disc whose centre lies on the corner of a pixel covers the rim of the tested one by half.
    assert brightness[:, 1].min() > 0.6 * 255
    assert (brightness[:, 2] < brightness[:, 1]).all()
    centres = np.array([[centre for _, centre in found[:2]] for found in discs])
    for image, points in zip(sample(size)[0], centres, strict=True):
        assert (image[points[:, 0], points[:, 1]] == 255).all()


@SIZES
def test_brightness_is_that_of_the_reference(size):
    images, _ = sample(size)
    # The reference's share is a mean over 60, 30 and 16 images, and its distractors are fewer.
    assert np.mean(images <= 10) == pytest.approx(DARK_SHARE[size], abs=0.02)
    assert np.mean(images == 0) == pytest.approx(BLACK_SHARE[size], abs=0.02)


@SIZES
def test_images_of_a_pair_have_their_dots_equally_far_apart(size):
    features = dots(sample(size)[0], radius=RADIUS[size])
    between = features[:, 6].reshape(-1, 2)
    # A step of the pairing, and half a pixel's diagonal for each of four dots found on the grid.
    assert np.abs(between[:, 0] - between[:, 1]).max() < size / 24 + 4 * 0.71


@pytest.mark.slow
@SIZES
def test_dots_and_statistics_say_less_of_the_label_than_in_the_reference(size):
    num_images = 20_000
    images, labels = join(generate_pathfinder(num_images, size=size, seed=2, num_workers=2))
    halves = slice(0, num_images // 2), slice(num_images // 2, None)
    for features in (dots(images, radius=RADIUS[size]), statistics(images)):
        right = [
            boosted(features[fit], labels[fit].astype(int), features[ask]) == labels[ask]
            for fit, ask in (halves, halves[::-1])
        ]
        # No more than the reference's own pictures at 32 give away; the standard error is 0.0035.
        assert np.mean(right) < 0.566 - 4 * 0.0035


@SIZES
def test_labels_are_balanced_at_every_even_number(size):
    _, labels = sample(size)
    assert labels.reshape(-1, 2).sum(axis=1).tolist() == [1] * (NUM_EXAMPLES // 2)
    # Within a pair the order is drawn: 127 fair coins.
    assert 0.3 < labels[::2].mean() < 0.7


@SIZES
def test_images_are_distinct(size):
    assert len({image.tobytes() for image in sample(size)[0]}) == NUM_EXAMPLES


def test_duplicate_leaves_with_its_pair():
    images = np.arange(8, dtype=np.uint8)[:, None, None].repeat(3, 1).repeat(3, 2)
    images[5] = images[1]
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1], dtype=np.uint8)
    chunks = iter([(images[:4], labels[:4]), (images[4:], labels[4:])])
    kept, kept_labels = join(_take_distinct(chunks, 6))
    assert kept[:, 0, 0].tolist() == [0, 1, 2, 3, 6, 7]
    assert kept_labels.tolist() == [0, 1, 1, 0, 0, 1]


@pytest.mark.slow  # the machinery is that of ListOps, whose test is quick
@pytest.mark.parametrize("num_workers", [2, 3])
def test_worker_count_changes_no_byte(num_workers):
    parallel = join(generate_pathfinder(NUM_EXAMPLES, size=32, seed=1, num_workers=num_workers))
    for part, serial in zip(parallel, sample(32), strict=True):
        np.testing.assert_array_equal(part, serial)


def test_shorter_stream_begins_the_longer():
    for short, long in zip(
        join(generate_pathfinder(5, size=32, seed=1, num_workers=1)), sample(32), strict=True
    ):
        np.testing.assert_array_equal(short, long[:5])


def test_seeds_give_other_images():
    images, _ = join(generate_pathfinder(2, size=32, seed=2, num_workers=1))
    assert (images != sample(32)[0][:2]).any(axis=(1, 2)).all()


def test_unknown_size_is_named_at_once():
    with pytest.raises(ValueError, match="size is 48; it must be one of 32, 64, 128"):
        generate_pathfinder(1, size=48, seed=0, num_workers=1)


def distance_to_segments(points, tails, heads):
    """Distances of points to segments, in float64, for every pair of them."""
    direction = heads - tails
    offset = points[:, None] - tails
    share = np.clip((offset * direction).sum(-1) / (direction**2).sum(-1), 0, 1)
    return np.linalg.norm(offset - share[..., None] * direction, axis=-1)


@pytest.mark.parametrize(
    ("size", "margin"), [(32, 1), (64, 1), (128, 2), (128, 3)], ids=lambda value: str(value)
)
def test_snakes_keep_clear_of_each_other(size, margin):
    style = STYLES[size]
    paddles = draw_paddles(np.random.default_rng(7), num_images=17, style=style, margin=margin)
    length = style.num_target_paddles
    snake = np.r_[np.repeat([0, 1], length), 2 + np.arange(paddles.shape[1] - 2 * length) // 4]
    for image in paddles.astype(np.float64):
        # A distractor that found no room lies far outside.
        placed = image[:, 0, 0] >= 0
        tails, heads, owner = image[placed, 0], image[placed, 1], snake[placed]
        apart = np.minimum(
            distance_to_segments(tails, tails, heads), distance_to_segments(heads, tails, heads)
        )
        # Paddles are held apart at points 5/3 pixels apart at most; in between, by a little less.
        least = np.sqrt(style.clearance**2 - (5 / 6) ** 2)
        assert apart[owner[:, None] != owner].min() > least
        # Neighbours of a target snake are at most a gap apart.
        assert np.linalg.norm(tails[1:length] - heads[: length - 1], axis=1).max() < (
            2 * margin + 1e-3
        )
        np.testing.assert_allclose(
            np.linalg.norm(heads - tails, axis=1)[: 2 * length], style.paddle_length, rtol=1e-4
        )
        seed_distance = np.linalg.norm(tails[0] - tails[length])
        assert seed_distance == pytest.approx(style.seed_distance, rel=1e-4)
        # Discs at any two of the four tips would be as far apart as two snakes.
        tips = np.stack([tails[0], heads[length - 1], tails[length], heads[2 * length - 1]])
        between_tips = np.linalg.norm(tips[:, None] - tips, axis=-1)[np.triu_indices(4, k=1)]
        assert between_tips.min() > style.clearance + 2 * style.marker_radius - 1e-3
