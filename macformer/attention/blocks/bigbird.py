"""BigBird: window, global and random blocks (Zaheer et al. 2020, arXiv 2007.14062)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from macformer.attention.contract import blank_padding, check_length
from macformer.ops.blocks import count_blocks, extent, fill_up
from macformer.ops.present import mark_present
from macformer.ops.union import Part, View, bias, union_attention

ROWS = 16  # blocks of queries whose keys are gathered at once on a CPU: they fit the cache


class BigBird(nn.Module):
    r"""Attend to the first and last block, the own block and its neighbours, and random blocks.

    .. math:: \{0, n_b - 1\} \cup \{i - 1, i, i + 1\} \cup R_i

    for the queries of block i, each block once; the blocks 0 and :math:`n_b - 1` see everything.
    :math:`n_b` counts the blocks of the example up to its last present token, where the published
    code takes those of the padded batch, so that the last block is padding. :math:`R_i` are the
    blocks of highest priority among the others, by priorities drawn once for each head.

    Args:
        block_size: In tokens.
        num_random: Random blocks for each block of queries.
        random_within: Draw random blocks from this many tokens at the front; null draws from all.
            The published code takes 1,024.

    Raises:
        ValueError: In a forward pass over more than ``max_seq_len`` tokens.
    """

    positional = True
    priorities: Tensor

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        max_seq_len: int,
        block_size: int,
        num_random: int,
        random_within: int | None,
    ):
        super().__init__()
        self.block_size = block_size
        self.num_random = num_random
        self.random_within = random_within
        self.max_seq_len = max_seq_len
        side = count_blocks(max_seq_len, block_size)
        self.register_buffer("priorities", torch.rand(num_heads, side, side))

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        length, b = query.shape[2], self.block_size
        check_length(query, key, max_seq_len=self.max_seq_len)
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        present = mark_present(key, key_padding_mask)
        num_rows, num_columns = count_blocks(length, b), count_blocks(key.shape[2], b)
        q, k, v = fill_up(query, num_rows * b), *(fill_up(x, num_columns * b) for x in (key, value))
        present = pad(present, (0, num_columns * b - present.shape[1]))
        last = (extent(present) - 1).clamp(min=0) // b
        ends = torch.stack([torch.zeros_like(last), last], -1)[:, None, None]
        ends = ends.expand(-1, -1, k.shape[1], -1)
        others, valid = self._choose(last, num_rows, num_columns)
        layers = [
            self._parts(ends, _is_new(ends), present, q),
            self._parts(others, valid, present, q),
            self._global_rows(present, last, q),
        ]
        return union_attention(q, k, v, layers, scale=q.shape[-1] ** -0.5)[:, :, :length]

    def _choose(
        self, last: Int[Tensor, " B"], num_rows: int, num_columns: int
    ) -> tuple[Int[Tensor, "B rows H slots"], Bool[Tensor, "B rows H slots"]]:
        """Return the key blocks of each block of queries, but for the first and the last of all.

        The neighbours and the random ones, and which of them count: no block counts twice, and none
        for the first and the last block of queries.
        """
        rows = torch.arange(num_rows, device=last.device).expand(len(last), -1)
        near = torch.stack([rows - 1, rows, rows + 1], -1)
        inner = (rows > 0) & (rows != last[:, None])
        valid = inner[..., None] & (near > 0) & (near < last[:, None, None])

        columns = torch.arange(num_columns, device=last.device)
        within = num_columns * self.block_size if self.random_within is None else self.random_within
        others = (columns > 0) & (columns < last[:, None]) & (columns * self.block_size < within)
        others = others[:, None] & inner[..., None] & ~(near[..., None] == columns).any(-2)
        priorities = self.priorities[:, :num_rows, :num_columns].transpose(0, 1)
        priorities = torch.where(others[:, :, None], priorities, -1)
        num_random = min(self.num_random, num_columns)
        priorities, drawn = priorities.topk(num_random, dim=-1)

        near, valid = (x[:, :, None].expand(-1, -1, priorities.shape[2], -1) for x in (near, valid))
        blocks = torch.cat([near.clamp(0, num_columns - 1), drawn], -1)
        return blocks, torch.cat([valid, priorities >= 0], -1)

    def _parts(
        self,
        blocks: Int[Tensor, "B rows H slots"],
        valid: Bool[Tensor, "B rows H slots"],
        present: Bool[Tensor, "B S"],
        query: Tensor,
    ) -> list[Part]:
        """Let runs of queries attend to blocks: one run for each of ``rows``."""
        batch, num_runs, num_heads, _ = blocks.shape
        tokens = present.unflatten(1, (-1, self.block_size))
        examples = torch.arange(batch, device=blocks.device)[:, None, None, None]
        allowed = (tokens[examples, blocks] & valid[..., None]).flatten(3).transpose(1, 2)
        mask = bias(allowed.flatten(0, 2)[:, None, None], query.dtype)
        heads = torch.arange(batch * num_heads, device=blocks.device).view(batch, num_heads, 1, 1)
        index = (heads * tokens.shape[1] + blocks.transpose(1, 2)).flatten(0, 2)
        parts = []
        rows = len(index) if query.is_cuda else ROWS  # a GPU waits for launches, not for memory
        for start in range(0, len(index), rows):
            stop = start + rows
            runs = View(
                lambda x, start=start, stop=stop: x.unflatten(2, (num_runs, -1)).flatten(0, 2)[
                    start:stop, None
                ]
            )
            keys = _Blocks(index[start:stop], self.block_size)
            parts.append(Part(runs, keys, (mask[start:stop],)))
        return parts

    def _global_rows(
        self, present: Bool[Tensor, "B S"], last: Int[Tensor, " B"], query: Tensor
    ) -> list[Part]:
        """Let the first and the last block of queries attend to all but these two of the keys."""
        (batch, num_heads), b = query.shape[:2], self.block_size
        columns = torch.arange(present.shape[1], device=present.device) // b
        inner = present & (columns > 0) & (columns < last[:, None])
        num_rows = query.shape[2] // b
        inner_of_last = inner & (last < num_rows)[:, None]  # the queries may end before the keys
        everything = View(lambda x: x.flatten(0, 1)[:, None])
        starts = torch.arange(batch * num_heads, device=last.device) * num_rows
        ends = starts + last.clamp(max=num_rows - 1).repeat_interleave(num_heads)
        parts = []
        for index, allowed in ((starts, inner), (ends, inner_of_last)):
            mask = bias(allowed.repeat_interleave(num_heads, 0)[:, None, None], query.dtype)
            parts.append(Part(_Blocks(index[:, None], b), everything, (mask,)))
        return parts


def _is_new(ends: Int[Tensor, "B 1 H 2"]) -> Bool[Tensor, "B 1 H 2"]:
    """Count the last block unless it is the first."""
    return (ends > 0) | (torch.arange(2, device=ends.device) == 0)


@dataclass(frozen=True)
class _Blocks:
    """Some whole blocks for each of some runs of queries, numbered over all examples and heads."""

    index: Tensor
    block_size: int

    def read(self, x: Tensor) -> Tensor:
        rows = self._blocks(x).index_select(0, self.index.flatten())
        return rows.view(len(self.index), 1, -1, x.shape[3])

    def write(self, x: Tensor, rows: Tensor) -> None:
        blocks = self._blocks(x)
        blocks.index_copy_(0, self.index.flatten(), rows.reshape(-1, blocks.shape[1]))

    def add(self, x: Tensor, rows: Tensor) -> None:
        blocks = self._blocks(x)
        blocks.index_add_(0, self.index.flatten(), rows.reshape(-1, blocks.shape[1]))

    def _blocks(self, x: Tensor) -> Tensor:
        return x.view(-1, self.block_size * x.shape[3])
