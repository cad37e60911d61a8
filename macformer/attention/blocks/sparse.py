"""Sparse Transformer's two patterns (Child et al. 2019, arXiv 1904.10509), in one head each."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from macformer.attention.contract import blank_padding
from macformer.ops.band import band_parts
from macformer.ops.blocks import count_blocks, fill_up
from macformer.ops.flash import heads_as_examples, round_up
from macformer.ops.present import mark_present
from macformer.ops.union import Part, Picked, View, bias, span, union_attention


class FixedSparseAttention(nn.Module):
    r"""Attend to the query's own block and to the summary columns of all blocks.

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
        shape = *query.shape[:3], value.shape[-1]
        if key_padding_mask is None:
            query, key, value = heads_as_examples(query, key, value)
        present = mark_present(key, key_padding_mask)
        layers = [[self._summary(present, query, is_whole=key_padding_mask is None)]]
        if self.num_first + self.num_last < self.block_size:
            layers.append(self._own(present, query))
        out = union_attention(query, key, value, layers, scale=query.shape[-1] ** -0.5)
        return out.view(shape)

    def _summary(self, present: Bool[Tensor, "B S"], query: Tensor, *, is_whole: bool) -> Part:
        """Return the part of the summary columns.

        Unless every one of them is seen, a column is masked beside them: there may be no other.
        """
        num_keys, device = present.shape[1], present.device
        blocks = torch.arange(num_keys, device=device).split(self.block_size)
        head, tail = slice(self.num_first), slice(self.block_size - self.num_last, None)
        index = torch.cat([x for block in blocks for x in (block[head], block[tail])])
        if is_whole and len(index) and not self.causal:
            return Part(span(0, None), Picked(index))
        short = round_up(len(index) + 1) - len(index)  # a short row may have no summary column
        masks = [bias(pad(present[:, None, None, index], (0, short)), query.dtype)]
        index = pad(index, (0, short))
        if self.causal:
            places = torch.arange(query.shape[2], device=device)
            masks.append(bias(index <= places[:, None], query.dtype)[None, None])
        return Part(span(0, None), Picked(index), tuple(masks))

    def _own(self, present: Bool[Tensor, "B S"], query: Tensor) -> list[Part]:
        """Return the parts of the own block's other columns: whole blocks, and the rest."""
        (num_heads, length), (num_keys, b) = query.shape[1:3], (present.shape[1], self.block_size)
        places = torch.arange(b, device=query.device)
        inner = (places >= self.num_first) & (places < b - self.num_last)
        whole = min(length, num_keys) // b * b
        parts = []
        if whole:
            width = min(round_up(b - self.num_first - self.num_last), b)
            start = min(self.num_first, b - width)
            columns = slice(start, start + width)
            blocks = View(lambda x: x[:, :, :whole].unflatten(2, (-1, b)).flatten(0, 1))
            keys = View(lambda x: blocks.read(x)[:, :, columns])
            allowed = (present[:, :whole].unflatten(1, (-1, 1, b)) & inner)[..., columns]
            masks = [bias(allowed.repeat_interleave(num_heads, 0), query.dtype)]
            if self.causal:
                masks.append(bias(places[columns] <= places[:, None], query.dtype)[None, None])
            parts.append(Part(blocks, keys, tuple(masks)))
        if whole < min(length, num_keys):
            stop = whole + b
            allowed = (present[:, whole:stop] & inner[: num_keys - whole])[:, None, None]
            if self.causal:
                allowed = allowed & (places[: allowed.shape[-1]] <= places[: length - whole, None])
            mask = bias(allowed, query.dtype)
            parts.append(Part(span(whole, stop), span(whole, stop), (mask,)))
        return parts


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
        (num_heads, length), b = query.shape[1:3], self.block_size
        num_blocks = count_blocks(max(length, key.shape[2]), b)
        query, key, value = (fill_up(x, num_blocks * b) for x in (query, key, value))
        present = pad(present, (0, num_blocks * b - present.shape[1]))
        near = band_parts(
            query,
            key,
            allowed=present,
            window=2 * b - 1,
            is_causal=self.causal,
            with_itself=False,  # it stands in its column
        )
        columns = View(lambda x: x.unflatten(2, (-1, b)).transpose(2, 3).flatten(0, 1))
        allowed = present.unflatten(1, (-1, 1, b)).permute(0, 3, 2, 1)
        masks = [bias(allowed.repeat_interleave(num_heads, 0), query.dtype)]
        if self.causal:
            rows = torch.arange(num_blocks, device=query.device)
            masks.append(bias(rows <= rows[:, None], query.dtype)[None, None])
        layers = [near, [Part(columns, columns, tuple(masks))]]
        out = union_attention(query, key, value, layers, scale=query.shape[-1] ** -0.5)
        return out[:, :, :length]
