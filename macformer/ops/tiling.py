"""How examples are cut into tiles of heads and tokens, and what of a tensor belongs to a tile."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# What a map computes of one tile, in numbers: 1 MiB of float32, which a second-level cache holds.
TILE_NUMBERS = 2**18

Tile = tuple[int, slice, slice]  # one example, some heads, some tokens
Results = tuple[Tensor, Tensor, Tensor]


def tile_tokens(num_columns: int) -> int:
    """Return the tokens of one thread's tile."""
    return max(1, TILE_NUMBERS // max(1, num_columns))


def tiles(lengths: list[int], heads: int, num_columns: int) -> Iterator[Tile]:
    """Cut each example into tiles of whole heads, or of one head's tokens where it is long."""
    most = tile_tokens(num_columns)
    for b, length in enumerate(lengths):
        num_tokens = max(1, math.ceil(length / max(1, math.ceil(length / most))))
        num_heads = max(1, most // num_tokens)
        for h in range(0, heads, num_heads):
            for t in range(0, length, num_tokens):
                yield b, slice(h, min(h + num_heads, heads)), slice(t, min(t + num_tokens, length))


def key_lengths(key: Tensor, key_padding_mask: Tensor | None) -> list[int]:
    """Return each example's length without the padding behind its last token.

    On a GPU, where reading a length would wait for the device, the padding counts.
    """
    batch, _, key_len, _ = key.shape
    if key_padding_mask is None or key.is_cuda:
        return [key_len] * batch
    position = torch.arange(1, key_len + 1, device=key.device)
    return (~key_padding_mask * position).flatten(1).amax(-1).tolist()


def on_folded(
    op: Callable[..., Results],
    tensors: Sequence[Tensor],
    *,
    num_columns: int,
    key_padding_mask: Tensor | None,
) -> Results:
    """Call a pass on examples as heads of one where they are short: a tile then takes several.

    Args:
        op: Takes the tensors, query and key first, and ``key_padding_mask``.
        num_columns: The numbers that its feature map computes of each token.
    """
    query, key = tensors[:2]
    batch, heads, query_len, _ = query.shape
    tokens = heads * max(query_len, key.shape[2])
    if batch == 1 or 2 * tokens > tile_tokens(num_columns):
        return op(*tensors, key_padding_mask=key_padding_mask)
    if key_padding_mask is not None:
        key_padding_mask = key_padding_mask.repeat_interleave(heads, dim=0)[None]
    folded = [x.flatten(0, 1)[None] for x in tensors]
    first, second, third = op(*folded, key_padding_mask=key_padding_mask)
    return tuple(x[0].unflatten(0, (batch, heads)) for x in (first, second, third))


def of_heads(columns: Tensor, x: Tensor, tile: Tile) -> Tensor:
    """Return what each head of a tile is multiplied by, from one matrix for all or one for each.

    Heads of examples that :func:`on_folded` made one of begin again with the first matrix.
    """
    columns = columns.to(x.dtype)
    if len(columns) == 1:
        return columns.expand(len(x), -1, -1)
    return columns[_heads(columns, tile)]


def _heads(columns: Tensor, tile: Tile) -> slice | Tensor:
    heads = tile[1]
    if heads.stop <= len(columns):
        return heads
    return torch.arange(heads.start, heads.stop, device=columns.device) % len(columns)


def add_of_heads(columns: Tensor, gradient: Tensor, tile: Tile) -> None:
    """Add the gradient of each head of a tile at what :func:`of_heads` took."""
    if len(columns) == 1:
        columns += gradient.sum(0)
        return
    heads = _heads(columns, tile)
    if isinstance(heads, slice):
        columns[heads] += gradient
    else:
        columns.index_add_(0, heads, gradient)


def padding_of(key_padding_mask: Tensor, tile: Tile) -> Tensor:
    b, _, t = tile
    masks_heads = key_padding_mask.ndim == 3  # of folded examples
    return (key_padding_mask[tile] if masks_heads else key_padding_mask[b, t])[..., None]


class Memory:
    """Memory that a map writes at each tile; fresh pages would cost more than what is written."""

    def __init__(self):
        self.numbers: Tensor | None = None

    def take(self, like: Tensor, *shape: int) -> Tensor:
        """Return a tensor that holds whatever was written last."""
        size = math.prod(shape)
        if self.numbers is None or self.numbers.numel() < size:
            self.numbers = like.new_empty(size)
        return self.numbers[:size].view(shape)
