"""Attentions of other packages, brought to the contract's layout with its projections left out.

Each is imported when it is asked for; none is a requirement.
"""

# pyright: reportMissingImports=false

import torch
from torch import Tensor, nn


class Merged(nn.Module):
    """Hand queries, keys and values side by side to a module that takes hidden states."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        merged = [x.transpose(1, 2).flatten(2) for x in (query, key, value)]
        out = self.attention(torch.cat(merged, dim=-1))
        return out.unflatten(-1, (query.shape[1], -1)).transpose(1, 2)


class Third(nn.Module):
    """Stand for a projection: return the queries, the keys or the values."""

    def __init__(self, index: int):
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return x.chunk(3, dim=-1)[self.index]


def performer(*, head_dim: int, num_features: int, **_: int) -> nn.Module:
    """FAVOR+ of performer-pytorch."""
    from performer_pytorch import FastAttention

    return FastAttention(dim_heads=head_dim, nb_features=num_features, causal=False)


def nystrom(*, num_heads: int, head_dim: int, num_features: int, **_: int) -> nn.Module:
    """Nystromformer of nystrom-attention, without its convolution."""
    from nystrom_attention import NystromAttention

    attention = NystromAttention(
        dim=num_heads * head_dim,
        dim_head=head_dim,
        heads=num_heads,
        num_landmarks=num_features,
        residual=False,
    )
    attention.to_qkv = attention.to_out = nn.Identity()
    return Merged(attention)


def linformer(*, num_heads: int, head_dim: int, num_features: int, max_seq_len: int) -> nn.Module:
    """Linformer of the package of that name, keys and values projected alike for all heads."""
    from linformer import LinformerSelfAttention

    attention = LinformerSelfAttention(
        dim=num_heads * head_dim, seq_len=max_seq_len, k=num_features, heads=num_heads
    )
    attention.to_q, attention.to_k, attention.to_v = Third(0), Third(1), Third(2)
    attention.to_out = nn.Identity()
    return Merged(attention)


def local(**_: int) -> nn.Module:
    """Blocks of 64 without their neighbours, of local-attention."""
    from local_attention import LocalAttention

    return LocalAttention(64, look_backward=0, look_forward=0, use_rotary_pos_emb=False)


class Reformer(nn.Module):
    """Two rounds of hashing and chunks of 64, of reformer-pytorch; it takes whole pairs of them."""

    def __init__(self, **_: int):
        super().__init__()
        from reformer_pytorch import LSHAttention

        self.attention = LSHAttention(bucket_size=64, n_hashes=2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out, *_ = self.attention(query.flatten(0, 1), value.flatten(0, 1))
        return out.unflatten(0, query.shape[:2])


def sinkhorn(*, num_heads: int, head_dim: int, max_seq_len: int, **_: int) -> nn.Module:
    """Blocks of 64 in a soft order, of sinkhorn-transformer."""
    from sinkhorn_transformer.sinkhorn_transformer import SinkhornAttention

    return SinkhornAttention(
        64,
        num_heads * head_dim,
        head_dim,
        num_heads,
        max_seq_len,
        non_permutative=False,
        sinkhorn_iter=8,
    )


def h_transformer(*, num_heads: int, head_dim: int, **_: int) -> nn.Module:
    """Blocks of 16, of h-transformer-1d, which rounds lengths up to powers of two."""
    from h_transformer_1d.h_transformer_1d import HAttention1D

    dim = num_heads * head_dim
    attention = HAttention1D(dim, heads=num_heads, dim_head=head_dim, block_size=16)
    attention.to_qkv = attention.to_out = nn.Identity()
    return Merged(attention)
