"""The one classifier of every task, and its parts."""

from macformer.models.classifier import SequenceClassifier
from macformer.models.embedding import (
    LearnedPositions,
    PixelEmbedding,
    SinusoidalPositions,
    TokenEmbedding,
)
from macformer.models.encoder import EncoderLayer, MultiheadAttention
from macformer.models.heads import MLPHead, concatenate_pair, nli_pair
from macformer.models.pooling import (
    ClsPooling,
    MeanPooling,
    PaddedMeanPooling,
    UnmaskedMeanPooling,
)

__all__ = [
    "ClsPooling",
    "EncoderLayer",
    "LearnedPositions",
    "MLPHead",
    "MeanPooling",
    "MultiheadAttention",
    "PaddedMeanPooling",
    "PixelEmbedding",
    "SequenceClassifier",
    "SinusoidalPositions",
    "TokenEmbedding",
    "UnmaskedMeanPooling",
    "concatenate_pair",
    "nli_pair",
]
