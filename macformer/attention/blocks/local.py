"""Local attention: each block of tokens by itself (Tay et al. 2021, Long Range Arena)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops.blocks import (
    attend_everywhere,
    block_attention,
    count_blocks,
    from_blocks,
    present_in_windows,
    to_blocks,
)
from macformer.ops.present import mark_present


class LocalAttention(nn.Module):
    r"""Attend within blocks that do not overlap.

    .. math:: o_i = \mathrm{softmax}_{j : \lfloor j/b \rfloor = \lfloor i/b \rfloor}
        (q_i \cdot k_j / \sqrt E) \, v_j

    The code of Long Range Arena reshapes to ``(block, num_blocks)`` instead, so that a group is
    every so many-th token of the row, and masks as if it were not.

    Args:
        block_size: b, in tokens.
        num_global: Tokens at the front that attend to all tokens and are attended to by all.
            Without one, a CLS token in front receives nothing from beyond the first block.
    """

    positional = True

    def __init__(self, *, num_heads: int, head_dim: int, block_size: int, num_global: int):
        super().__init__()
        self.block_size = block_size
        self.num_global = num_global

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        length, first = query.shape[2], self.num_global
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        present = mark_present(key, key_padding_mask)
        num_blocks = count_blocks(length, self.block_size)
        q, k, v = (to_blocks(x, self.block_size, num_blocks) for x in (query, key, value))
        local = present.clone()
        local[:, :first] = False
        valid = present_in_windows(local, self.block_size, num_blocks, margin=0)
        if first:
            k, v = (_put_in_front(x[:, :, :first], y) for x, y in ((key, k), (value, v)))
            shared = present[:, None, None, :first].expand(-1, num_blocks, -1, -1)
            valid = torch.cat([shared, valid], -1)
        out = from_blocks(block_attention(q, k, v, valid=valid), length)
        if first:
            rows = attend_everywhere(query[:, :, :first], key, value, present)
            out = torch.cat([rows, out[:, :, first:]], 2)
        return out


def _put_in_front(shared: Tensor, blocks: Tensor) -> Tensor:
    shared = shared[:, None].expand(-1, blocks.shape[1], -1, -1, -1)
    return torch.cat([shared, blocks], 3)
