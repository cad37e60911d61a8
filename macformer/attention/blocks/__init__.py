"""Attention of each query to the keys of a fixed, random or learnt pattern of blocks."""

from macformer.attention.blocks.bigbird import BigBird
from macformer.attention.blocks.h_transformer import HTransformer
from macformer.attention.blocks.local import LocalAttention
from macformer.attention.blocks.long_short import LongShortAttention
from macformer.attention.blocks.longformer import Longformer
from macformer.attention.blocks.reformer import Reformer
from macformer.attention.blocks.sinkhorn import SinkhornAttention
from macformer.attention.blocks.sparse import FixedSparseAttention, StridedSparseAttention

__all__ = [
    "BigBird",
    "FixedSparseAttention",
    "HTransformer",
    "LocalAttention",
    "LongShortAttention",
    "Longformer",
    "Reformer",
    "SinkhornAttention",
    "StridedSparseAttention",
]
