"""How examples are cut into tiles of heads and tokens, and what of a tensor belongs to a tile."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, repeat
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

# What a map computes of one tile, in numbers: 1 MiB of float32. Smaller tiles are slower even where
# a second-level cache holds half of that: calls cost more than reading from the next level.
TILE_NUMBERS = 2**18

Tile = tuple[int, slice, slice]  # one example, some heads, some tokens
Results = tuple[Tensor, Tensor, Tensor]
Views = TypeVar("Views")


def tile_tokens(num_columns: int) -> int:
    """Return the tokens of one thread's tile."""
    return max(1, TILE_NUMBERS // max(1, num_columns))


def tiles(
    rows: Sequence[Tensor | None],
    states: Sequence[Tensor | None],
    lengths: list[int],
    num_columns: int,
) -> Iterator[tuple[Tile, Any, Any]]:
    """Cut each example into tiles of whole heads, or of one head's tokens where it is long.

    Yields each tile with its part of ``rows``, [heads, tokens, X], and with the ``states`` of its
    heads, [heads, X, Y]; None stays None. Views are taken many at once, and none of what a tile
    takes whole: at a thousand tokens, each by itself would cost as much as a product.

    Args:
        rows: What tokens have a row of, [batch, heads, tokens, X].
        states: What whole heads have, [batch, heads, X, Y].
        lengths: How many tokens of each example there are tiles of.
        num_columns: The numbers that are computed of each token.

    Raises:
        ValueError: If tensors disagree in examples, heads or tokens, or a length exceeds these.
    """
    _, num_heads, num_tokens = _common_shape(rows, states, max(lengths, default=0))
    most, num_rows = tile_tokens(num_columns), len(rows)
    examples = _together((*rows, *states), Tensor.unbind, len(lengths))
    for b, (length, example) in enumerate(zip(lengths, examples, strict=True)):
        by_token = _even_sizes(length, most)
        by_head = _even_sizes(num_heads, max(1, most // max(by_token, default=1)))
        for h, group in _cut(example, by_head, dim=0):
            of_tokens, of_heads = group[:num_rows], group[num_rows:]
            if length < num_tokens:
                of_tokens = [None if x is None else x[:, :length] for x in of_tokens]
            for t, part in _cut(of_tokens, by_token, dim=1):
                yield (b, h, t), part, of_heads


def _common_shape(
    rows: Sequence[Tensor | None], states: Sequence[Tensor | None], longest: int
) -> torch.Size:
    """Return the examples, heads and tokens of rows, which :func:`tiles` needs to be the same."""
    shapes = {x.shape[:3] for x in rows if x is not None}
    of_states = {x.shape[:2] for x in states if x is not None}
    shape = max(shapes)
    if len(shapes) > 1 or of_states - {shape[:2]} or longest > shape[2]:
        raise ValueError(f"rows {shapes} and states {of_states} disagree, or {longest} is too long")
    return shape


def _even_sizes(total: int, most: int) -> list[int]:
    """Return the sizes of as few parts as hold no more than ``most`` of a total, as even as can."""
    if total <= most:
        return [total] if total else []
    size = math.ceil(total / math.ceil(total / most))
    full, rest = divmod(total, size)
    return [size] * full + [rest] * bool(rest)


def _cut(
    tensors: Sequence[Tensor | None], sizes: list[int], dim: int
) -> Iterator[tuple[slice, Sequence[Tensor | None]]]:
    """Yield where each part lies, and what it has of the tensors; None stays None."""
    if len(sizes) == 1:
        yield slice(0, sizes[0]), tensors
        return
    parts = _together(tensors, lambda x: x.split_with_sizes(sizes, dim), len(sizes))
    for size, stop, part in zip(sizes, accumulate(sizes), parts, strict=True):
        yield slice(stop - size, stop), part


def _together(
    tensors: Sequence[Tensor | None], cut: Callable[[Tensor], Sequence[Tensor]], num_parts: int
) -> Iterator[tuple[Tensor | None, ...]]:
    """Yield the first parts of all tensors, then the next; None stays None."""
    parts = (repeat(None, num_parts) if x is None else cut(x) for x in tensors)
    return zip(*parts, strict=True)


def key_lengths(key: Tensor, key_padding_mask: Tensor | None) -> list[int]:
    """Return each example's length without the padding behind its last token.

    On a GPU, where reading a length would wait for the device, the padding counts.
    """
    batch, _, key_len, _ = key.shape
    if key_padding_mask is None or key.is_cuda or not batch * key_len:
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


class HeadMatrices:
    """What each head of a tile is multiplied by, from one matrix for all or one for each.

    Heads of examples that :func:`on_folded` made one of begin again with the first matrix. A tile
    takes what one before it took of the same heads.

    Args:
        matrices: One for all heads, or one for each: [1 or heads, E, F].
    """

    def __init__(self, matrices: Tensor):
        self.matrices = matrices
        self._cycle = matrices.shape[0]
        self._taken: dict[tuple[int, int], Tensor] = {}

    def of(self, x: Tensor, tile: Tile) -> Tensor:
        """Return one matrix for each head of x, in the dtype that the first x has."""
        first, num_heads = tile[1].start % self._cycle, x.shape[0]
        if (first, num_heads) not in self._taken:
            matrices, stop = self.matrices.to(x.dtype), first + num_heads
            if self._cycle == 1:
                in_turn = matrices.expand(num_heads, -1, -1)
            elif stop <= self._cycle:
                in_turn = matrices[first:stop]
            else:
                in_turn = matrices.repeat(math.ceil(stop / self._cycle), 1, 1)[first:stop]
            self._taken[first, num_heads] = in_turn
        return self._taken[first, num_heads]

    def multiply(self, x: Tensor, tile: Tile, out: Tensor | None = None) -> Tensor:
        """Multiply the rows of each head, [heads, tokens, E], by its matrix.

        With one matrix for all, contiguous rows of all heads make one product: many small ones take
        nearly twice as long where a head has 16 tokens. Where it has 512, both take the same.
        """
        matrices = self.of(x, tile)
        if self._cycle > 1 or not x.is_contiguous():
            return torch.bmm(x, matrices, out=out)
        if out is None:
            return torch.mm(x.flatten(0, 1), matrices[0]).view(*x.shape[:2], -1)
        torch.mm(x.flatten(0, 1), matrices[0], out=out.flatten(0, 1))
        return out


def add_of_heads(matrices: Tensor, gradient: Tensor, tile: Tile) -> None:
    """Add the gradient of each head of a tile at what :class:`HeadMatrices` took."""
    cycle, num_heads = matrices.shape[0], gradient.shape[0]
    first = tile[1].start % cycle
    if first + num_heads <= cycle:
        matrices[first : first + num_heads].add_(gradient)
    elif first == num_heads % cycle == 0:
        matrices.add_(gradient.unflatten(0, (-1, cycle)).sum(0))
    else:
        heads = torch.arange(first, first + num_heads, device=matrices.device) % cycle
        matrices.index_add_(0, heads, gradient)


def padding_of(key_padding_mask: Tensor | None, key: Tensor) -> Tensor | None:
    """Return the mask for every head: [batch, heads, tokens, 1]."""
    if key_padding_mask is None:
        return None
    masks_heads = key_padding_mask.ndim == 3  # of folded examples
    padding = key_padding_mask if masks_heads else key_padding_mask[:, None]
    return padding[..., None].expand(*key.shape[:-1], 1)


def contiguous_rows(x: Tensor) -> Tensor:
    """Return x, copied where its vectors do not lie in one piece, as kernels read them."""
    return x if x.stride(-1) == 1 else x.contiguous()


def new_rows(like: Tensor, num_columns: int, dtype: torch.dtype) -> Tensor:
    """Return memory for a row of each token, a multiple of 4 numbers apart.

    Products of rows of 33 numbers, one behind the other, take a third longer.
    """
    apart = num_columns + -num_columns % 4
    return like.new_empty(*like.shape[:-1], apart, dtype=dtype)[..., :num_columns]


class Memory(Generic[Views]):
    """Memory that a map writes at each tile; fresh pages would cost more than what is written.

    Args:
        cut: Makes of it the views that the map works with, once for all tiles of a shape. No method
            of the map: in a cycle, memory would outlive its use.
    """

    def __init__(self, cut: Callable[[Tensor], Views]):
        self._cut = cut
        self._numbers: Tensor | None = None
        self._views: dict[tuple[int, ...], Views] = {}

    def take(self, like: Tensor, *shape: int) -> Views:
        """Return views of a tensor that holds whatever was written last."""
        if shape not in self._views:
            size = math.prod(shape)
            if self._numbers is None or self._numbers.numel() < size:
                self._numbers = like.new_empty(size)
                self._views.clear()
            self._views[shape] = self._cut(self._numbers[:size].view(shape))
        return self._views[shape]
