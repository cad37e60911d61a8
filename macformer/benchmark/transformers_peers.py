"""Attentions of Hugging Face's transformers, in the contract's layout, without projections.

Each is imported when it is asked for; the package is no requirement.
"""

# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Given(nn.Module):
    """Stand for a projection: return a copy of what was given, which is divided in place."""

    tensor: Tensor

    def forward(self, _: Tensor) -> Tensor:
        return self.tensor.clone()


class Unprojected(nn.Module):
    """Give queries, keys and values to a module in place of its projections of hidden states.

    Args:
        projections: The names of its projections of queries, keys and values, None where it has
            none.
        call: Calls it on hidden states, of which it reads the shape, and returns its output.
        batch_first: Whether it projects ``(batch, length, width)``, or with the length first.
    """

    def __init__(
        self,
        attention: nn.Module,
        projections: Sequence[str | None],
        call: Callable[[nn.Module, Tensor], Tensor],
        *,
        batch_first: bool = True,
    ):
        super().__init__()
        self.attention, self.call, self.batch_first = attention, call, batch_first
        self.given = [Given() for _ in projections]
        for name, given in zip(projections, self.given, strict=True):
            if name is not None:
                setattr(attention, name, given)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        merged = [x.transpose(1, 2).flatten(2) for x in (query, key, value)]
        for given, x in zip(self.given, merged, strict=True):
            given.tensor = x if self.batch_first else x.transpose(0, 1)
        out = self.call(self.attention, merged[0])
        return out.unflatten(-1, (query.shape[1], -1)).transpose(1, 2)


def longformer(*, num_heads: int, head_dim: int, **_: int) -> nn.Module:
    """Return a window of 512 without global tokens; it takes multiples of it."""
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = LongformerConfig(
        hidden_size=num_heads * head_dim,
        num_attention_heads=num_heads,
        attention_window=[512],
        attention_probs_dropout_prob=0.0,
    )

    def call(attention: nn.Module, hidden: Tensor) -> Tensor:
        mask = hidden.new_zeros(hidden.shape[:2])
        options = {"is_index_masked": mask > 0, "is_index_global_attn": mask > 0}
        return attention(hidden, attention_mask=mask, is_global_attn=False, **options)[0]

    attention = LongformerSelfAttention(config, 0)
    return Unprojected(attention, ("query", "key", "value"), call, batch_first=False)


def bigbird(*, num_heads: int, head_dim: int, max_seq_len: int, **_: int) -> nn.Module:
    """Return blocks of 64 with three random ones; it takes multiples of a block, of 11 and more."""
    from transformers import BigBirdConfig
    from transformers.models.big_bird import modeling_big_bird

    config = BigBirdConfig(
        hidden_size=num_heads * head_dim,
        num_attention_heads=num_heads,
        block_size=64,
        num_random_blocks=3,
        max_position_embeddings=max_seq_len,
    )
    masks: dict[torch.Size, tuple[Tensor, ...]] = {}  # a model makes them once for all layers

    def call(attention: nn.Module, hidden: Tensor) -> Tensor:
        shape = hidden.shape[:2]
        if shape not in masks:
            make = modeling_big_bird.BigBirdModel.create_masks_for_block_sparse_attn
            masks[shape] = make(hidden.new_ones(shape), 64)
        blocked, band, of_queries, of_keys = masks[shape]
        return attention(hidden, band, of_queries, of_keys, blocked, blocked)[0]

    attention = modeling_big_bird.BigBirdBlockSparseAttention(config, seed=0)
    return Unprojected(attention, ("query", "key", "value"), call)


def reformer(*, num_heads: int, head_dim: int, max_seq_len: int, **_: int) -> nn.Module:
    """Return two rounds of hashing and chunks of 64; it takes multiples of a chunk."""
    from transformers import ReformerConfig
    from transformers.models.reformer.modeling_reformer import LSHSelfAttention

    config = ReformerConfig(
        hidden_size=num_heads * head_dim,
        num_attention_heads=num_heads,
        attention_head_size=head_dim,
        num_hashes=2,
        num_buckets=max(2, max_seq_len // 32),
        lsh_attn_chunk_length=64,
        lsh_num_chunks_before=1,
        lsh_num_chunks_after=0,
        is_decoder=False,
        hash_seed=None,
        lsh_attention_probs_dropout_prob=0.0,
        max_position_embeddings=max_seq_len,
    )
    projections = "query_key", None, "value"
    return Unprojected(
        LSHSelfAttention(config), projections, lambda module, x: module(x).hidden_states
    )
