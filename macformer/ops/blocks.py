"""Attention of blocks of queries to few keys each, by gathering the keys.

Blocks have the layout ``(B, num_blocks, H, block, E)``, so that one call of torch's
``scaled_dot_product_attention`` serves all blocks and a mask need not be repeated for each head.
Lengths are rounded up to whole blocks inside, and the rounding is masked.
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from macformer.ops.sdpa import fused_attention


def extent(present: Bool[Tensor, "B S"]) -> Int[Tensor, " B"]:
    """Return the length of each example up to its last present token."""
    places = torch.arange(1, present.shape[1] + 1, device=present.device)
    return torch.where(present, places, 0).amax(1)


def count_blocks(length: int, block_size: int) -> int:
    return -(-length // block_size)


def fill_up(x: Shaped[Tensor, "B H N E"], length: int) -> Shaped[Tensor, "B H M E"]:
    """Put zeros behind a sequence up to a length."""
    return pad(x, (0, 0, 0, length - x.shape[2])) if x.shape[2] < length else x


def to_blocks(
    x: Shaped[Tensor, "B H N E"], block_size: int, num_blocks: int
) -> Shaped[Tensor, "B blocks H block E"]:
    """Cut a sequence into blocks, the last ones filled up with zeros, or cut off."""
    return to_windows(x, block_size, num_blocks, margin=0)


def from_blocks(x: Shaped[Tensor, "B blocks H block E"], length: int) -> Shaped[Tensor, "B H N E"]:
    """Put blocks together to a sequence, and cut off what it was rounded up by."""
    return x.transpose(1, 2).flatten(2, 3)[:, :, :length]


def to_windows(
    x: Shaped[Tensor, "B H N E"], block_size: int, num_blocks: int, *, margin: int
) -> Shaped[Tensor, "B blocks H window E"]:
    """View each block with the tokens beside it, on either side ``margin``; zeros past the ends."""
    behind = num_blocks * block_size + margin - x.shape[2]
    if margin or behind:
        x = pad(x, (0, 0, margin, behind))
    return x.unfold(2, margin + block_size + margin, block_size).permute(0, 2, 1, 4, 3)


def present_in_windows(
    present: Bool[Tensor, "B S"], block_size: int, num_blocks: int, *, margin: int
) -> Bool[Tensor, "B blocks 1 window"]:
    """Say which places of the windows hold a present token."""
    x = present[:, None, :, None]
    return to_windows(x, block_size, num_blocks, margin=margin)[..., 0]


def block_attention(
    query: Float[Tensor, "B blocks H block E"],
    key: Float[Tensor, "B blocks H S E"],
    value: Float[Tensor, "B blocks H S Ev"],
    *,
    valid: Bool[Tensor, "B blocks heads S"],
) -> Float[Tensor, "B blocks H block Ev"]:
    """Attend within each block; where no key is valid the output is zero.

    Args:
        valid: Which keys of a block count, for all heads or each.
    """
    q, k, v = (x.flatten(0, 1) for x in (query, key, value))
    out = fused_attention(q, k, v, attn_mask=valid.flatten(0, 1)[:, :, None])
    return out.unflatten(0, query.shape[:2])


def attend_everywhere(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    present: Bool[Tensor, "B S"],
) -> Float[Tensor, "B H L Ev"]:
    """Attend to every present key, for the few rows of a pattern that are global."""
    return fused_attention(query, key, value, attn_mask=present[:, None, None])
