"""Grow the snakes of Pathfinder: dashed contours that keep clear of each other.

A snake is a chain of paddles. Its next paddle turns by an angle whose weight is its squared cosine,
restricted to the angles at which the paddle stays inside the image and clear of all others; where
there is none, the snake takes back its last paddles and tries again. Many images grow at a time.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy.random import Generator

from tasks.pathfinder.style import Style

_ATTEMPTS = 64
# Of 16 turns 11 degrees apart, from -88 on, none is a right angle, whose weight is 0.
_NUM_CANDIDATES = 16
_FIRST_TURN, _TURN_STEP = -88, 11
# Near the fastest of a grid of both, by process time per image at all sizes.
_PADDLES_BACK = 2
_STEPS_PER_PADDLE = 4
_NOWHERE = -1e4

_ANGLES = np.deg2rad(np.arange(360))
# Coarser than the differences between the sines of one machine and those of another.
_DIRECTIONS = np.rint(np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1) * 2**16) / 2**16
_DIRECTIONS = _DIRECTIONS.astype(np.float32)


class Obstacles(NamedTuple):
    """Points on the paddles drawn so far, with the radii of the discs that may lie on them."""

    points: Float32[np.ndarray, "images points 2"]
    radii: Float32[np.ndarray, "points"]

    def add(
        self, snakes: Float32[np.ndarray, "images paddles points 2"], tip_radius: float
    ) -> "Obstacles":
        """Join the points of one more snake per image, with a disc at either end."""
        radii = np.zeros(snakes.shape[1] * snakes.shape[2], dtype=np.float32)
        radii[[0, -1]] = tip_radius
        points = snakes.reshape(len(snakes), radii.size, 2)
        return Obstacles(
            np.concatenate([self.points, points], axis=1), np.concatenate([self.radii, radii])
        )


def draw_paddles(
    rng: Generator, *, num_images: int, style: Style, margin: int
) -> Float32[np.ndarray, "images paddles 2 2"]:
    """Draw both ends (x, y) of all paddles: the two target snakes first, then the distractors."""
    pairs = []
    while sum(map(len, pairs)) < num_images:
        pairs.append(_draw_target_pairs(rng, style=style, margin=margin))
    targets = np.concatenate(pairs)[:num_images]
    obstacles = _no_obstacles(num_images)
    for snakes in np.moveaxis(targets, 1, 0):
        obstacles = obstacles.add(snakes, style.marker_radius)
    for _ in range(style.num_distractors):
        starts = _draw_points(
            rng,
            (num_images, _NUM_CANDIDATES),
            low=style.padding,
            high=style.size - 1 - style.padding,
        )
        snakes, rows = _grow(
            rng,
            starts,
            obstacles,
            num_paddles=style.num_distractor_paddles,
            tip_radius=0.0,
            style=style,
            margin=margin,
        )
        # A crowded image goes without.
        placed = np.full((num_images, *snakes.shape[1:]), _NOWHERE, dtype=np.float32)
        placed[rows] = snakes
        obstacles = obstacles.add(placed, 0.0)
    return obstacles.points.reshape(num_images, -1, targets.shape[3], 2)[:, :, [0, -1]]


def _draw_target_pairs(
    rng: Generator, *, style: Style, margin: int
) -> Float32[np.ndarray, "images 2 paddles points 2"]:
    """Draw pairs of long snakes whose first ends are seed_distance apart."""
    # The first snake begins near the centre, as far from the border as the reference has it.
    border = 2 * style.seed_distance
    seeds = _draw_points(rng, (_ATTEMPTS, 1), low=border, high=style.size - border)
    angles = rng.integers(0, 360, size=(_ATTEMPTS, _NUM_CANDIDATES))
    starts = seeds, seeds + style.seed_distance * _DIRECTIONS[angles]
    obstacles = _no_obstacles(_ATTEMPTS)
    snakes = []
    kept = np.arange(_ATTEMPTS)
    for start in starts:
        grown, rows = _grow(
            rng,
            start[kept],
            obstacles,
            num_paddles=style.num_target_paddles,
            tip_radius=style.marker_radius,
            style=style,
            margin=margin,
        )
        kept = kept[rows]
        snakes = [*(previous[rows] for previous in snakes), grown]
        obstacles = Obstacles(obstacles.points[rows], obstacles.radii).add(
            grown, style.marker_radius
        )
    return np.stack(snakes, axis=1)


def _grow(
    rng: Generator,
    starts: Float32[np.ndarray, "images starts 2"],
    obstacles: Obstacles,
    *,
    num_paddles: int,
    tip_radius: float,
    style: Style,
    margin: int,
) -> tuple[Float32[np.ndarray, "grown paddles points 2"], Int64[np.ndarray, "grown"]]:
    """Grow one snake per image from one of its starts; return the complete ones and their rows."""
    num_points = style.paddle_length // 2 + 2
    num_images = len(starts)
    growth = _Growth(
        rows=np.arange(num_images),
        length=np.zeros(num_images, dtype=np.int64),
        headings=np.zeros((num_images, num_paddles), dtype=np.int64),
        points=np.zeros((num_images, num_paddles, num_points, 2), dtype=np.float32),
        starts=starts,
        others=obstacles.points,
    )
    own_radii = np.zeros(num_paddles * num_points, dtype=np.float32)
    own_radii[0] = tip_radius
    complete = []
    for _ in range(_STEPS_PER_PADDLE * num_paddles):
        headings, points, weights = _propose(rng, growth, style=style, margin=margin)
        radii = np.zeros((growth.rows.size, num_points), dtype=np.float32)
        radii[growth.length == 0, 0] = tip_radius
        radii[growth.length == num_paddles - 1, -1] = tip_radius
        # The paddle before the new one is a gap away, not a clearance.
        is_earlier = np.arange(num_paddles) < growth.length[:, None] - 1
        is_earlier = np.repeat(is_earlier, num_points, axis=1)[:, None]
        own_points = growth.points.reshape(growth.rows.size, own_radii.size, 2)
        reach = style.clearance + radii[..., None]
        valid = _is_inside(points, radii, style=style)
        valid &= _is_clear(points, own_points, (reach + own_radii) * is_earlier)
        valid &= _is_clear(points, growth.others, reach + obstacles.radii)
        is_complete = growth.step(headings, points, _choose(rng, weights * valid))
        complete.append((growth.points[is_complete], growth.rows[is_complete]))
        growth = _Growth(*(array[~is_complete] for array in growth))
    snakes, rows = (np.concatenate(arrays) for arrays in zip(*complete, strict=True))
    order = np.argsort(rows)
    return snakes[order], rows[order]


class _Growth(NamedTuple):
    """The unfinished snakes, one per image."""

    rows: Int64[np.ndarray, "images"]
    length: Int64[np.ndarray, "images"]
    headings: Int64[np.ndarray, "images paddles"]
    points: Float32[np.ndarray, "images paddles points 2"]
    starts: Float32[np.ndarray, "images starts 2"]
    others: Float32[np.ndarray, "images others 2"]

    def step(
        self,
        headings: Int64[np.ndarray, "images candidates"],
        points: Float32[np.ndarray, "images candidates points 2"],
        choice: Int64[np.ndarray, "images"],
    ) -> Bool[np.ndarray, "images"]:
        """Add the chosen paddles, take some back where the choice is -1; say which are complete."""
        grows = np.flatnonzero(choice >= 0)
        slot = self.length[grows]
        self.headings[grows, slot] = headings[grows, choice[grows]]
        self.points[grows, slot] = points[grows, choice[grows]]
        self.length[:] = np.where(
            choice >= 0, self.length + 1, np.maximum(self.length - _PADDLES_BACK, 0)
        )
        return self.length == self.headings.shape[1]


def _propose(
    rng: Generator, growth: _Growth, *, style: Style, margin: int
) -> tuple[
    Int64[np.ndarray, "images candidates"],
    Float32[np.ndarray, "images candidates points 2"],
    Int64[np.ndarray, "images candidates"],
]:
    """Propose next paddles: their headings in degrees, points and weights."""
    num_images = growth.rows.size
    jitter = rng.integers(0, _TURN_STEP, size=(num_images, 1))
    turns = _FIRST_TURN + _TURN_STEP * np.arange(_NUM_CANDIDATES) + jitter
    any_heading = rng.integers(0, 360, size=turns.shape)
    is_first = growth.length[:, None] == 0
    last = np.arange(num_images), growth.length - 1
    last_heading = growth.headings[last][:, None]
    headings = np.where(is_first, any_heading, (last_heading + turns) % 360)
    directions = _DIRECTIONS[headings]
    # Paddles turn about the middle of the gap between them.
    pivots = growth.points[last][:, None, -1] + margin * _DIRECTIONS[last_heading]
    tails = np.where(is_first[..., None], growth.starts, pivots + margin * directions)
    steps = np.linspace(0, style.paddle_length, growth.points.shape[2], dtype=np.float32)
    points = tails[:, :, None] + steps[:, None] * directions[:, :, None]
    weights = np.where(is_first, 1, _turn_weights(style.continuity)[turns])
    return headings, points, weights


def _choose(
    rng: Generator, weights: Int64[np.ndarray, "images candidates"]
) -> Int64[np.ndarray, "images"]:
    """Draw a candidate with probability proportional to its weight, or -1 if all are 0."""
    cumulative = np.cumsum(weights, axis=1)
    total = cumulative[:, -1]
    choice = (cumulative <= (rng.random(total.size) * total)[:, None]).sum(axis=1)
    return np.where(total > 0, choice, -1)


def _turn_weights(continuity: float) -> Int64[np.ndarray, "degrees"]:
    """Weigh turns by cos^2(min(continuity |turn|, 90 degrees)), in whole parts of 10,000.

    A negative turn indexes from the end of the circle.
    """
    turn = np.arange(360)
    turn = np.minimum(continuity * np.minimum(turn, 360 - turn), 90)
    return np.rint(10_000 * np.cos(np.deg2rad(turn)) ** 2).astype(np.int64)


def _is_inside(
    points: Float32[np.ndarray, "images candidates points 2"],
    radii: Float32[np.ndarray, "images points"],
    *,
    style: Style,
) -> Bool[np.ndarray, "images candidates"]:
    border = np.maximum(radii, style.padding)[:, None, :, None]
    return np.all((points >= border) & (points <= style.size - 1 - border), axis=(2, 3))


def _is_clear(
    points: Float32[np.ndarray, "images candidates points 2"],
    others: Float32[np.ndarray, "images others 2"],
    distance: np.ndarray,
) -> Bool[np.ndarray, "images candidates"]:
    """Say which candidates have all points at a distance of the others, given per image."""
    offset = points[..., 0, None] - others[:, None, None, :, 0]
    squared = np.square(offset)
    np.subtract(points[..., 1, None], others[:, None, None, :, 1], out=offset)
    squared += np.square(offset, out=offset)
    least = np.square(distance, dtype=np.float32)
    return np.all(squared >= least[:, None], axis=(2, 3))


def _draw_points(
    rng: Generator, shape: tuple[int, ...], *, low: int, high: int
) -> Float32[np.ndarray, "*shape 2"]:
    return (low + (high - low) * rng.random((*shape, 2))).astype(np.float32)


def _no_obstacles(num_images: int) -> Obstacles:
    return Obstacles(np.zeros((num_images, 0, 2), np.float32), np.zeros(0, np.float32))
