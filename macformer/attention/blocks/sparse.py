"""Sparse Transformer's two patterns (Child et al. 2019, arXiv 1904.10509), in one head each."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops.band import band_parts, from_groups, to_groups
from macformer.ops.blocks import count_blocks
from macformer.ops.present import mark_present
from macformer.ops.union import Part, bias, keys_after, keys_before, union_attention


class FixedSparseAttention(nn.Module):
    r"""Attend to the own block and to the summary columns of all blocks.

    .. math::
        \{j : \lfloor j/b \rfloor = \lfloor i/b \rfloor\} \cup
        \{j : j \bmod b < a\} \cup \{j : j \bmod b \ge b - c\}

    The paper has heads for the own block and heads for the summaries, and no first columns; Long
    Range Arena merges both in each head, with the first column of each block.

    Args:
        block_size: b.
        num_first: a, summary columns at the start of each block.
        num_last: c, summary columns at its end.
        causal: Whether a query sees keys up to its own place only, as in Long Range Arena's
            encoder.

    Raises:
        ValueError: If there is no summary column, or more of them than a block has.
    """

    positional = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        block_size: int,
        num_first: int,
        num_last: int,
        causal: bool,
    ):
        super().__init__()
        if not 1 <= num_first + num_last <= block_size:
            raise ValueError(
                f"num_first {num_first} and num_last {num_last} must make 1 to block_size "
                f"{block_size} summary columns"
            )
        self.block_size = block_size
        self.num_first = num_first
        self.num_last = num_last
        self.causal = causal

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        present = mark_present(key, key_padding_mask)
        (num_heads, length), b = query.shape[1:3], self.block_size
        num_blocks = count_blocks(max(length, key.shape[2]), b)

        def arrange(x: Tensor) -> Tensor:
            return to_groups(x, b, num_blocks)

        def restore(x: Tensor, _: float) -> Tensor:
            return from_groups(x, num_heads, length)

        k, v, columns = (arrange(x) for x in (key, value, _as_column(present, num_heads)))
        parts = [self._summary(query, k, v, columns)]
        inner = slice(self.num_first, b - self.num_last)
        if inner.start < inner.stop:
            mask = bias(columns[:, :, inner], k.dtype).mT
            own = Part(
                arrange(query), k[:, :, inner], v[:, :, inner], mask, False, restore, arrange
            )
            # key u of the inner columns stands at inner.start + u
            parts.append(keys_before(own, inner.start) if self.causal else own)
        return union_attention(parts, scale=query.shape[-1] ** -0.5)

    def _summary(self, query: Tensor, k: Tensor, v: Tensor, columns: Tensor) -> Part:
        """Return the part of the summary columns, the same for all queries."""
        num_heads, length = query.shape[1:3]
        head, tail = slice(self.num_first), slice(self.block_size - self.num_last, None)

        def pick(x: Tensor) -> Tensor:
            x = torch.cat([x[:, :, head], x[:, :, tail]], 2)
            return x.flatten(1, 2).unflatten(0, (-1, num_heads))

        allowed = pick(columns)[:, :1].mT
        if self.causal:
            places = torch.arange(k.shape[1] * self.block_size, device=k.device)
            columns = places.view(1, -1, self.block_size, 1).expand(num_heads, -1, -1, -1)
            allowed = allowed & (pick(columns)[:, :1].mT <= places[:length, None])
        mask = bias(allowed, k.dtype)
        return Part(query, pick(k), pick(v), mask, False, lambda x, _: x, lambda x: x)


def _as_column(present: Tensor, num_heads: int) -> Tensor:
    return present[:, None, :, None].expand(-1, num_heads, -1, -1)


class StridedSparseAttention(nn.Module):
    r"""Attend to the last few and next few tokens, and to every b-th one.

    .. math:: \{j : |i - j| < b\} \cup \{j : (i - j) \bmod b = 0\}

    Args:
        block_size: b, at least 2.
        causal: Whether a query sees keys up to its own place only.

    Raises:
        ValueError: If the block is too small.
    """

    positional = True

    def __init__(self, *, num_heads: int, head_dim: int, block_size: int, causal: bool):
        super().__init__()
        if block_size < 2:
            raise ValueError(f"block_size must be at least 2, got {block_size}")
        self.block_size = block_size
        self.causal = causal

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        present = mark_present(key, key_padding_mask)
        window = 2 * self.block_size - 1
        parts = band_parts(query, key, value, allowed=present, window=window, is_causal=self.causal)
        (num_heads, length), b = query.shape[1:3], self.block_size
        num_blocks = count_blocks(max(length, key.shape[2]), b)

        def arrange(x: Tensor) -> Tensor:
            return to_groups(x, b, num_blocks).transpose(1, 2)

        def restore(x: Tensor, _: float) -> Tensor:
            return from_groups(x.transpose(1, 2), num_heads, length)

        if num_blocks > 1:  # the column of a token, without the token itself
            q, k, v, columns = (
                arrange(x) for x in (query, key, value, _as_column(present, num_heads))
            )
            column = Part(q, k, v, bias(columns, k.dtype).mT, False, restore, arrange)
            parts.append(keys_before(column, 1))
            if not self.causal:
                parts.append(keys_after(column, 1))
        return union_attention(parts, scale=query.shape[-1] ** -0.5)
