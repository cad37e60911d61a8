"""Attention of each query to the keys of a fixed, random or learnt pattern of blocks."""

from macformer.attention.blocks.local import LocalAttention
from macformer.attention.blocks.longformer import Longformer
from macformer.attention.blocks.sparse import FixedSparseAttention, StridedSparseAttention

__all__ = ["FixedSparseAttention", "LocalAttention", "Longformer", "StridedSparseAttention"]
