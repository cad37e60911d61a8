"""The look of Pathfinder's images at each size."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Style:
    """How the images of one size are drawn; lengths in pixels.

    All values but clearance and ringing are those of google-research/long-range-arena,
    lra_benchmarks/data/pathfinder.py; where it is silent, the defaults of drewlinsley/pathfinder,
    snakes2_wrapper.py.

    Attributes:
        margins: Half the gap between two paddles of a snake; each serves equally many images.
        continuity: Factor on the angle of a turn before its cosine is taken.
        ringing: Distance from a centre line up to which its faint ring reaches. The reference draws
            at twice the size and resamples by Lanczos' filter, whose third lobe leaves a few grey
            values around each paddle; about as many pixels are then black as are in its pictures.
        clearance: Least distance between the centre lines of two snakes, well above the widest gap.
    """

    size: int
    paddle_length: int
    margins: tuple[int, ...]
    thickness: float
    continuity: float
    num_distractors: int
    seed_distance: int
    marker_radius: float
    target_contrast: float
    distractor_contrast: float
    clearance: float
    ringing: float
    padding: int = 1
    num_target_paddles: int = 14
    num_distractor_paddles: int = 4


STYLES = {
    32: Style(
        size=32,
        paddle_length=2,
        margins=(1,),
        thickness=0.5,
        continuity=1.0,
        num_distractors=5,
        seed_distance=7,
        marker_radius=1.5,
        target_contrast=1.5,
        distractor_contrast=2.0,
        clearance=4.0,
        ringing=2.42,
    ),
    64: Style(
        size=64,
        paddle_length=5,
        margins=(1,),
        thickness=1.0,
        continuity=1.8,
        num_distractors=5,
        seed_distance=12,
        marker_radius=2.5,
        target_contrast=0.8,
        distractor_contrast=0.8,
        clearance=4.0,
        ringing=2.7,
    ),
    128: Style(
        size=128,
        paddle_length=5,
        margins=(2, 3),
        thickness=1.5,
        continuity=1.8,
        num_distractors=8,
        seed_distance=20,
        marker_radius=3.0,
        target_contrast=0.9,
        distractor_contrast=0.9,
        clearance=8.5,
        ringing=2.9,
    ),
}
