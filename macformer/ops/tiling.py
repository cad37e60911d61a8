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


def tiles(
    rows: Sequence[Tensor], states: Sequence[Tensor], lengths: list[int], num_columns: int
) -> Iterator[tuple[Tile, list[Tensor], list[Tensor]]]:
    """Cut each example into tiles of whole heads, or of one head's tokens where it is long.

    Yields each with what it has of tensors that have rows for tokens, [batch, heads, tokens, X],
    and of those that have other rows, which all tiles of a head share. Views are taken together
    where they can be: at a thousand tokens, taking them one by one costs as much as a product.

    Args:
        lengths: How many tokens of each example there are tiles of.
        num_columns: The numbers that are computed of each token.
    """
    most = tile_tokens(num_columns)
    examples = zip(*(x.unbind(0) for x in (*rows, *states)), strict=True)
    for b, (length, example) in enumerate(zip(lengths, examples, strict=True)):
        num_tokens = max(1, math.ceil(length / max(1, math.ceil(length / most))))
        num_heads = max(1, most // num_tokens)
        heads = [_parts(x, num_heads, dim=0) for x in example]
        for i, some in enumerate(zip(*heads, strict=True)):
            h = slice(i * num_heads, i * num_heads + len(some[0]))
            tokens = [_parts(x, num_tokens, dim=1, stop=length) for x in some[: len(rows)]]
            for j, part in enumerate(zip(*tokens, strict=True)):
                start = j * num_tokens
                t = slice(start, min(start + num_tokens, length))
                yield (b, h, t), list(part), list(some[len(rows) :])


def _parts(x: Tensor, size: int, *, dim: int, stop: int | None = None) -> Sequence[Tensor]:
    """Cut x into parts of a size, the last of which may be smaller."""
    if stop is not None and stop < x.shape[dim]:
        x = x.narrow(dim, 0, stop)
    if 0 < x.shape[dim] <= size:
        return (x,)
    return x.split(size, dim) if x.shape[dim] else ()


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
    folded = [x.reshape(1, batch * heads, *x.shape[2:]) for x in tensors]
    first, second, third = op(*folded, key_padding_mask=key_padding_mask)
    return tuple(x.view(batch, heads, *x.shape[2:]) for x in (first, second, third))


def of_heads(columns: Tensor, x: Tensor, tile: Tile) -> Tensor:
    """Return what each head of a tile is multiplied by, from one matrix for all or one for each.

    Heads of examples that :func:`on_folded` made one of begin again with the first matrix.
    """
    columns = columns.to(x.dtype)
    if len(columns) == 1:
        return columns.expand(len(x), -1, -1)
    if tile[1].start % len(columns) == 0 and len(x) % len(columns) == 0:
        return columns.repeat(len(x) // len(columns), 1, 1) if len(x) > len(columns) else columns
    return columns[_heads(columns, tile)]


def _heads(columns: Tensor, tile: Tile) -> slice | Tensor:
    """Return where the matrices of a tile's heads are: in a row, unless it passes the last one."""
    num_heads = tile[1].stop - tile[1].start
    first = tile[1].start % len(columns)
    if first + num_heads <= len(columns):
        return slice(first, first + num_heads)
    return torch.arange(first, first + num_heads, device=columns.device) % len(columns)


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


def padding_of(key_padding_mask: Tensor | None, key: Tensor) -> list[Tensor]:
    """Return the mask of every head, [batch, heads, tokens, 1], or nothing if there is none."""
    if key_padding_mask is None:
        return []
    masks_heads = key_padding_mask.ndim == 3  # of folded examples
    padding = key_padding_mask if masks_heads else key_padding_mask[:, None]
    return [padding[..., None].expand(*key.shape[:-1], 1)]


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
