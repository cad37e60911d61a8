"""BigBird: window, global and random blocks (Zaheer et al. 2020, arXiv 2007.14062)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops.blocks import (
    attend_everywhere,
    block_attention,
    count_blocks,
    extent,
    from_blocks,
    present_in_windows,
    to_blocks,
)
from macformer.ops.present import mark_present


class BigBird(nn.Module):
    r"""Attend to the first and the last block, to the own and its neighbours, and to random ones.

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
        if max(length, key.shape[2]) > self.max_seq_len:
            raise ValueError(
                f"got {max(length, key.shape[2])} tokens, but max_seq_len is {self.max_seq_len}"
            )
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        present = mark_present(key, key_padding_mask)
        num_rows, num_columns = count_blocks(length, b), count_blocks(key.shape[2], b)
        last = (extent(present) - 1).clamp(min=0) // b
        blocks, valid = self._choose(last, num_rows, num_columns)

        q = to_blocks(query, b, num_rows)
        k, v = (_gather(to_blocks(x, b, num_columns), blocks) for x in (key, value))
        tokens = present_in_windows(present, b, num_columns, margin=0).squeeze(2)
        examples = torch.arange(len(last), device=last.device)
        tokens = tokens[examples[:, None, None, None], blocks] & valid[..., None]
        out = block_attention(q, k, v, valid=tokens.flatten(-2))
        return from_blocks(self._see_everything(out, q, key, value, present, last), length)

    def _choose(
        self, last: Int[Tensor, " B"], num_rows: int, num_columns: int
    ) -> tuple[Int[Tensor, "B rows H slots"], Bool[Tensor, "B rows H slots"]]:
        """Return the key blocks of each block of queries, and which slots hold one not yet seen."""
        rows = torch.arange(num_rows, device=last.device).expand(len(last), -1)
        ends = last[:, None].expand_as(rows)
        fixed = torch.stack([torch.zeros_like(rows), ends, rows - 1, rows, rows + 1], -1)
        seen = (fixed[..., :, None] == fixed[..., None, :]).tril(-1).any(-1)
        valid = (fixed >= 0) & (fixed <= last[:, None, None]) & ~seen

        columns = torch.arange(num_columns, device=last.device)
        within = num_columns * self.block_size if self.random_within is None else self.random_within
        others = (columns <= last[:, None]) & (columns * self.block_size < within)
        others = others[:, None] & ~(fixed[..., None] == columns).any(-2)
        priorities = self.priorities[:, :num_rows, :num_columns].transpose(0, 1)
        priorities = torch.where(others[:, :, None], priorities, -1)
        num_random = min(self.num_random, num_columns)
        priorities, drawn = priorities.topk(num_random, dim=-1)

        fixed, valid = (
            x[:, :, None].expand(-1, -1, priorities.shape[2], -1) for x in (fixed, valid)
        )
        blocks = torch.cat([fixed.clamp(0, num_columns - 1), drawn], -1)
        return blocks, torch.cat([valid, priorities >= 0], -1)

    def _see_everything(
        self,
        out: Tensor,
        q: Tensor,
        key: Tensor,
        value: Tensor,
        present: Tensor,
        last: Tensor,
    ) -> Tensor:
        """Replace the rows of the first and of the last block."""
        num_rows, b = q.shape[1], self.block_size
        examples = torch.arange(len(q), device=q.device)
        ends = q[examples, last.clamp(max=num_rows - 1)]
        rows = attend_everywhere(torch.cat([q[:, 0], ends], 2), key, value, present)
        index = torch.arange(num_rows, device=q.device)
        is_last = (index == last[:, None])[:, :, None, None, None]
        out = torch.where(is_last, rows[:, None, :, b:], out)
        return torch.where((index == 0)[:, None, None, None], rows[:, None, :, :b], out)


def _gather(
    x: Float[Tensor, "B blocks H block E"], blocks: Int[Tensor, "B rows H slots"]
) -> Float[Tensor, "B rows H window E"]:
    batch, num_blocks, num_heads, _, dim = x.shape
    rows = x.transpose(1, 2).flatten(0, 2).flatten(1)
    first = torch.arange(batch * num_heads, device=x.device).view(batch, 1, num_heads, 1)
    picked = rows.index_select(0, (first * num_blocks + blocks).flatten())
    return picked.view(*blocks.shape[:3], -1, dim)
