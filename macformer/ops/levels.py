r"""Where the levels of a hierarchy lie: in one sequence of rows, of all heads, cut into tiles.

A row of level l stands for a run of :math:`2^l` tokens. The keys of a tile are its own rows and a
block on either side, read where they lie.
"""

import math
from collections.abc import Iterator
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from macformer.ops.blocks import count_blocks
from macformer.ops.precision import accumulation_dtype
from macformer.ops.union import bias

TILE = 32  # queries at once: more see too many keys in vain, and fewer are slow to multiply
TOKENS = 2048  # of heads that are worked on together: more take more memory, fewer more calls


class Layout:
    """Where the levels of some heads lie in one sequence of rows, which tiles cut evenly.

    Level behind level, in each head behind head, and behind each at least a block of rows that no
    query is to see. Such a block lies in front of all tiles and behind them, too.
    """

    def __init__(self, like: Tensor, block_size: int):
        *self.heads, length, _ = like.shape
        self.block, self.tile = block_size, tile_of(block_size)
        num_levels = max(count_blocks(length, block_size) - 1, 1).bit_length()
        coarsest = count_blocks(length, 2 ** (num_levels - 1))
        self.lengths = [coarsest << level for level in reversed(range(num_levels))]
        self.sizes = [count_blocks(n + block_size, self.tile) * self.tile for n in self.lengths]
        self.num_rows = math.prod(self.heads) * sum(self.sizes)

    def levels(self, tiles: Tensor) -> list[Float[Tensor, "B H n X"]]:
        parts = tiles.view(self.num_rows, -1).split([math.prod(self.heads) * n for n in self.sizes])
        each = zip(parts, self.sizes, self.lengths, strict=True)
        return [x.view(*self.heads, size, -1)[:, :, :n] for x, size, n in each]

    def tiles(self, rows: Tensor) -> Float[Tensor, "tiles 1 tile X"]:
        return rows[self.block : -self.block].view(-1, 1, self.tile, rows.shape[-1])

    def parts(self, rows: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Name the tiles of the finest level, and those of all others, if any.

        With them go queries, and keys and values with a block on either side.
        """
        query, _, _ = self.tiles(rows).chunk(3, dim=-1)
        windows = rows.unfold(0, self.block + self.tile + self.block, self.tile).mT
        _, key, value = windows.unsqueeze(1).chunk(3, dim=-1)
        num_finest = math.prod(self.heads) * self.sizes[0] // self.tile
        for tiles in (slice(0, num_finest), slice(num_finest, None))[: len(self.sizes)]:
            yield tiles, query[tiles], key[tiles], value[tiles]

    def merge(self, windows: Tensor) -> Tensor:
        """Add up what windows hold of the same rows."""
        before, own, after = windows.split([self.block, self.tile, self.block], dim=2)
        own[:-1, :, -self.block :] += before[1:]
        own[1:, :, : self.block] += after[:-1]
        return own


def tile_of(block_size: int) -> int:
    return block_size * max(1, TILE // block_size)


def masks_of_levels(block_size: int, like: Tensor) -> list[Float[Tensor, "1 1 tile window"]]:
    """Allow keys in the query's block or the next, above the finest level unless that has them.

    Half a block is a block of the level below.
    """
    tile = tile_of(block_size)
    places = torch.arange(block_size + tile + block_size, device=like.device)
    own = places[block_size:-block_size, None]
    near, nearer = (
        (places // size - own // size).abs() <= 1 for size in (block_size, block_size // 2)
    )
    return [bias(x, accumulation_dtype(like))[None, None] for x in (near, near & ~nearer)]


def some_heads(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Choose some examples with all heads, or some heads of one, at a time; on a GPU all at once.

    There, many small calls would wait for each other.
    """
    batch, num_heads, length, _ = x.shape
    most = batch * num_heads if x.is_cuda else max(1, TOKENS // max(1, length))
    num_examples = max(1, most // num_heads)
    for b, h in product(range(0, batch, num_examples), range(0, num_heads, most)):
        yield slice(b, b + num_examples), slice(h, h + most)


def in_pairs(x: Tensor) -> Tensor:
    """Put the two rows of a run onto an axis of their own."""
    return x.unflatten(2, (-1, 2))
