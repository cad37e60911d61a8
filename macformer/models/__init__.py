"""The one classifier of every task, and its parts.

In each layer of the encoder a *mixer* carries information between positions. A mixer is anything
importable that behaves like this::

    factory(*, embed_dim, max_seq_len) -> module
    module(x, key_padding_mask) -> out

with ``x`` and ``out`` ``(B, N, D)`` and ``key_padding_mask`` ``(B, N)``, True at padding, or None.
:class:`MultiheadAttention` is one, around any attention of :mod:`macformer.attention`. The YAML
gives the mixer's own parameters (Hydra's ``_partial_``), the layer gives the shapes; a factory that
does not need ``max_seq_len`` does not take it. A mixer is bidirectional, and padding has no
influence. Like an attention it may have methods ``diagnostics()`` and
``state_size(seq_len)``, which returns how many numbers it keeps of a sequence.
"""

from macformer.models.attention import MultiheadAttention
from macformer.models.classifier import SequenceClassifier
from macformer.models.embedding import (
    LearnedPositions,
    PixelEmbedding,
    SeriesEmbedding,
    SinusoidalPositions,
    TokenEmbedding,
)
from macformer.models.encoder import EncoderLayer, SequenceEncoder
from macformer.models.heads import MLPHead, concatenate_pair, nli_pair
from macformer.models.pooling import (
    ClsPooling,
    FirstPooling,
    MeanPooling,
    PaddedMeanPooling,
    UnmaskedMeanPooling,
)
from macformer.models.s4d import S4D

__all__ = [
    "S4D",
    "ClsPooling",
    "EncoderLayer",
    "FirstPooling",
    "LearnedPositions",
    "MLPHead",
    "MeanPooling",
    "MultiheadAttention",
    "PaddedMeanPooling",
    "PixelEmbedding",
    "SequenceClassifier",
    "SequenceEncoder",
    "SeriesEmbedding",
    "SinusoidalPositions",
    "TokenEmbedding",
    "UnmaskedMeanPooling",
    "concatenate_pair",
    "nli_pair",
]
