"""Maclaurin features of one tile, and the way back through them."""

import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from macformer.ops.tiled import Features, Pull
from macformer.ops.tiling import HeadMatrices, Memory, Tile


class Products:
    """Each level multiplies the prefix of features that are still alive (a FeatureMap).

    Args:
        signs: As in :class:`~macformer.ops.MaclaurinFeatures`, like all other arguments.

    Raises:
        ValueError: If a second level multiplies entries.
    """

    def __init__(
        self,
        signs: Tensor,
        widths: Sequence[int],
        has_entries: bool,
        weights: Tensor,
        constant: Tensor,
    ):
        self.weights, self.constant = weights, constant
        self.num_features, self.num_columns = sum(widths[:1]), _whole_lines(sum(widths))
        self._sizes = _Sizes.of(widths, num_entries=signs.shape[-2] if has_entries else 0)
        self._signs = HeadMatrices(signs)
        self._levels = Memory(partial(_cut_levels, widths=widths))

    def features(self, x: Tensor, tile: Tile) -> Features:
        whole, first, steps = self._levels.take(x, *x.shape[:2], self.num_columns)
        self._signs.multiply(x, tile, out=whole)
        for alive, level in steps:
            alive.mul_(level)
        return (first,)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        return self._reversible.pullback(x, tile)

    @cached_property
    def _reversible(self) -> "_Reversible":
        return _Reversible(self._signs.matrices, self._sizes)


class _Sizes(NamedTuple):
    """How many features or projections are of each kind.

    Attributes:
        pairs: Features that begin with a product of two projections.
        single: Those that are one projection.
        entries: Those that are an entry of the row.
        further: Features alive at each level behind the second.
    """

    pairs: int
    single: int
    entries: int
    further: list[int]

    @classmethod
    def of(cls, widths: Sequence[int], num_entries: int) -> "_Sizes":
        first, *levels = widths or (0,)
        pairs, *further = levels or (0,)
        single = first - num_entries - pairs
        if single < 0:
            raise ValueError(f"widths {tuple(widths)} leave no {num_entries} features of degree 1")
        return cls(pairs, single, num_entries, further)


class _Reversible:
    """The same features, of which no factor is lost.

    The first two levels are multiplied into memory of the features. On the way back the gradient
    of features multiplies either of the two where it lies, which gives the gradient of the other.
    So neither is copied, and their signs change places. Entries are copied, not multiplied by unit
    vectors.
    """

    def __init__(self, signs: Tensor, sizes: _Sizes):
        pairs, single, num_entries, further = self._sizes = sizes
        parts = signs.split_with_sizes([pairs, single, num_entries, pairs, *further], -1)
        first, alone, _, second, *others = parts
        self._signs = HeadMatrices(torch.cat([*others, first, alone, second], -1))
        self._signs_back = HeadMatrices(torch.cat([second, alone, first, *others], -1))
        self._features = Memory(partial(_cut_features, sizes=sizes))
        self._projections = Memory(partial(_cut_projections, sizes=sizes))

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        pairs, single, num_entries, further = self._sizes
        phi = self._features.take(x, *x.shape[:2], pairs + single + num_entries)
        row = _whole_lines(2 * pairs + single + 2 * sum(further))
        projections = self._projections.take(x, *x.shape[:2], row)
        self._signs.multiply(x, tile, out=projections.whole)
        torch.mul(projections.first, projections.second, out=phi.pairs)
        if single:
            phi.single.copy_(projections.single)
        if num_entries:
            phi.entries.copy_(x)
        steps = list(zip(phi.alive, projections.further, strict=True))
        for alive, (level, before) in steps:
            before.copy_(alive)  # dividing the product out again would fail at zeros
            alive.mul_(level)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            torch.bmm(y, state, out=phi.whole)
            for grad, (level, before) in reversed(steps):
                before.mul_(grad)
                grad.mul_(level)
            projections.first.mul_(phi.pairs)
            projections.second.mul_(phi.pairs)
            if single:
                projections.single.copy_(phi.single)
            signs = self._signs_back.of(x, tile).mT
            if num_entries:
                return torch.baddbmm(phi.entries, projections.gradients, signs)
            return torch.bmm(projections.gradients, signs)

        return (phi.whole,), pull


class _Features(NamedTuple):
    """Memory of a tile's features, and then of the gradients at them; [heads, tokens, X] each.

    Attributes:
        whole: Of all.
        pairs: Of one kind, as in :class:`_Sizes`.
        single: Likewise.
        entries: Likewise.
        alive: Of those that each further level multiplies.
    """

    whole: Tensor
    pairs: Tensor
    single: Tensor
    entries: Tensor
    alive: list[Tensor]


class _Projections(NamedTuple):
    """Memory of a tile's projections, and then of the gradients at them; [heads, tokens, X] each.

    Attributes:
        whole: Of all projections.
        gradients: Of the gradients at all of them.
        first: Of those that pairs begin with, and then of the gradients at the second level.
        single: Of those that are features as they are.
        second: Of those of the second level, and then of the gradients at the first.
        further: Of those of each further level, and of what the features are before it, which
            becomes its gradient.
    """

    whole: Tensor
    gradients: Tensor
    first: Tensor
    single: Tensor
    second: Tensor
    further: list[tuple[Tensor, Tensor]]


def _whole_lines(num_columns: int) -> int:
    """Return the numbers of a row that begins with a cache line: it is read a fifth faster."""
    return 16 * math.ceil(num_columns / 16)


def _cut_levels(
    memory: Tensor, widths: Sequence[int]
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Return what rows hold of all levels, of the first, and of each other one.

    Beside the latter stand the features of the first that it multiplies.
    """
    whole = memory[..., : sum(widths)]
    if not widths:
        return whole, whole, []
    first, *others = whole.split_with_sizes(list(widths), -1)
    return whole, first, [(first[..., : level.shape[-1]], level) for level in others]


def _cut_features(memory: Tensor, sizes: _Sizes) -> _Features:
    pairs, single, entries = memory.split_with_sizes([sizes.pairs, sizes.single, sizes.entries], -1)
    return _Features(
        memory, pairs, single, entries, [pairs[..., :width] for width in sizes.further]
    )


def _cut_projections(memory: Tensor, sizes: _Sizes) -> _Projections:
    """Cut rows so that projections lie at the front, and their gradients behind each other."""
    num_levels, num_further = len(sizes.further), sum(sizes.further)
    drawn = [sizes.pairs, sizes.single, sizes.pairs]
    num_projections = num_further + sum(drawn)
    columns = [*sizes.further, *drawn, *sizes.further]
    parts = memory[..., : sum(columns)].split_with_sizes(columns, -1)
    first, single, second = parts[num_levels : num_levels + 3]
    return _Projections(
        whole=memory[..., :num_projections],
        gradients=memory[..., num_further : num_further + num_projections],
        first=first,
        single=single,
        second=second,
        further=list(zip(parts[:num_levels], parts[num_levels + 3 :], strict=True)),
    )
