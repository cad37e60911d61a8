"""H-Transformer-1D: attention coarser with distance (Zhu and Soricut 2021, arXiv 2107.11906)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from macformer.attention.contract import blank, blank_padding
from macformer.ops.blocks import count_blocks, from_blocks, to_blocks, to_windows
from macformer.ops.flash import attend_to_few
from macformer.ops.present import mark_present
from macformer.ops.union import lowest


class HTransformer(nn.Module):
    r"""Attend exactly nearby, and to averages over ever longer runs of tokens further off.

    .. math::
        o_i = \frac{\sum_j e^{s_{ij}} v_j}{\sum_j e^{s_{ij}}}, \qquad
        s_{ij} = \frac{\bar q^{(l)}_i \cdot \bar k^{(l)}_j}{\sqrt E}

    where l is the least level at which the blocks of i and j are the same or neighbours, blocks at
    level l being :math:`N_r 2^l` tokens long, and :math:`\bar q^{(l)}_i` is the mean over the
    present ones of the :math:`2^l` tokens around i. The levels share one softmax, by their
    normalisers. Other implementations subtract a maximum of each level's own, which changes the
    weight of the levels, or one of the whole row, which lets distant terms underflow.

    Args:
        block_size: :math:`N_r`, even.

    Raises:
        ValueError: If the block size is odd, or queries and keys differ in number.
    """

    self_attention_only = True
    positional = True

    def __init__(self, *, num_heads: int, head_dim: int, block_size: int):
        super().__init__()
        if block_size < 2 or block_size % 2:
            raise ValueError(f"block_size must be even, got {block_size}")
        self.block_size = block_size

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        length = query.shape[2]
        if length != key.shape[2]:
            raise ValueError(f"queries are averaged as keys are, got {length} and {key.shape[2]}")
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        query = blank(query, key_padding_mask)  # it is averaged, too
        present = mark_present(key, key_padding_mask)
        num_levels = max(count_blocks(length, self.block_size) - 1, 1).bit_length()
        count = present[:, None, :, None].to(torch.promote_types(query.dtype, torch.float32))
        short = -length % 2 ** (num_levels - 1)
        sums = [pad(x, (0, 0, 0, short)) for x in (query, key, value, count)]
        levels = []
        for level in range(num_levels):
            if level:
                sums = [x.unflatten(2, (-1, 2)).sum(3) for x in sums]
            levels.append(self._attend(*sums, is_near=level == 0))
        out, normaliser = levels.pop()
        while levels:
            near, z = levels.pop()
            out, normaliser = (x.repeat_interleave(2, 2) for x in (out, normaliser))
            both = torch.logaddexp(normaliser, z)
            out = (normaliser - both).exp() * out + (z - both).exp() * near
            normaliser = both
        return out[:, :, :length].to(value.dtype)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, count: Tensor, *, is_near: bool
    ) -> tuple[Float[Tensor, "B H n Ev"], Float[Tensor, "B H n 1"]]:
        """Return the output of one level and its normaliser, given sums over runs of tokens."""
        length, b = query.shape[2], self.block_size
        num_blocks = count_blocks(length, b)
        mean = count.clamp(min=1)
        q = to_blocks(query / mean, b, num_blocks)
        k, v, n = (
            to_windows(x, b, num_blocks, margin=b) for x in (key / mean, value / mean, count)
        )
        # a run counts once for each token in it
        mask = torch.where(n > 0, n.clamp(min=1).log(), lowest(n.dtype)).mT
        if not is_near:
            mask = mask.masked_fill(self._nearer(mask.device), lowest(mask.dtype))
        out, z = attend_to_few(q, k, v, mask, scale=q.shape[-1] ** -0.5)
        return from_blocks(out, length), from_blocks(z, length)

    def _nearer(self, device: torch.device) -> Bool[Tensor, "block window"]:
        """Say which keys of a window a finer level has: those of the same half block or the next.

        Half a block here is a block there.
        """
        halves = torch.arange(3 * self.block_size, device=device) // (self.block_size // 2)
        own = halves[self.block_size : 2 * self.block_size, None]
        return (halves - own).abs() <= 1
