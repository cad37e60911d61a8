"""Attention to a few tokens, or to a few sums of tokens, instead of all.

Gaussian attention uses all tokens; it is here because Skyformer approximates it.
"""

from macformer.attention.landmarks.gaussian import GaussianAttention
from macformer.attention.landmarks.informer import AllKeys, Informer, SampledKeys
from macformer.attention.landmarks.linformer import (
    FixedProjection,
    LearntProjection,
    Linformer,
    SegmentMeans,
)
from macformer.attention.landmarks.nystromformer import Nystromformer
from macformer.attention.landmarks.skyformer import Skyformer

__all__ = [
    "AllKeys",
    "FixedProjection",
    "GaussianAttention",
    "Informer",
    "LearntProjection",
    "Linformer",
    "Nystromformer",
    "SampledKeys",
    "SegmentMeans",
    "Skyformer",
]
