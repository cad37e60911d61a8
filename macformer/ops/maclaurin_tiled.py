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
    """Products of projections, and maybe the entries of a row as they are (a FeatureMap).

    The first two levels are multiplied into the memory of features, and each further one multiplies
    those at the front that are still alive. On the way back, the gradient of features multiplies
    either of the first two where it lies, which gives the gradient of the other. So neither is
    copied, and their signs change places.

    Args:
        signs: As in :class:`~macformer.ops.MaclaurinFeatures`, like all other arguments.
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
        self.num_features, *levels = widths or (0,)
        self.num_columns = sum(widths)
        num_entries = signs.shape[-2] if has_entries else 0
        pairs, *further = levels or (0,)
        single = self.num_features - num_entries - pairs  # features of one projection
        parts = signs.split_with_sizes([pairs, single, num_entries, pairs, *further], -1)
        self._signs_of = *parts[:2], *parts[3:]
        self._signs = HeadMatrices(torch.cat(self._signs_of, -1))
        sizes = [pairs, single, num_entries, pairs, single, pairs, *further, *further]
        self._row = 16 * math.ceil(sum(sizes) / 16)  # begins with a cache line
        self._memory = Memory(partial(_cut, sizes=[*sizes, self._row - sum(sizes)]))

    @cached_property
    def _signs_back(self) -> HeadMatrices:
        first, single, second, *further = self._signs_of
        return HeadMatrices(torch.cat([second, single, first, *further], -1))

    def features(self, x: Tensor, tile: Tile) -> Features:
        numbers = self._project(x, tile)
        for alive, level, _ in numbers.further:
            alive.mul_(level)
        return (numbers.features,)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        numbers = self._project(x, tile)
        for alive, level, before in numbers.further:
            before.copy_(alive)  # dividing the product out again would fail at zeros
            alive.mul_(level)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            torch.bmm(y, state, out=numbers.features)
            for grad, level, before in reversed(numbers.further):
                before.mul_(grad)
                grad.mul_(level)
                level.copy_(before)
            numbers.first.mul_(numbers.pairs)
            numbers.second.mul_(numbers.pairs)
            if numbers.of_single.shape[-1]:
                numbers.of_single.copy_(numbers.single)
            signs = self._signs_back.of(x, tile).mT
            if numbers.entries.shape[-1]:
                return torch.baddbmm(numbers.entries, numbers.projections, signs)
            return torch.bmm(numbers.projections, signs)

        return (numbers.features,), pull

    def _project(self, x: Tensor, tile: Tile) -> "_Numbers":
        """Return all projections of a tile, and its features to the end of the second level."""
        numbers = self._memory.take(x, *x.shape[:2], self._row)
        torch.bmm(x, self._signs.of(x, tile), out=numbers.projections)
        torch.mul(numbers.first, numbers.second, out=numbers.pairs)
        if numbers.single.shape[-1]:
            numbers.single.copy_(numbers.of_single)
        if numbers.entries.shape[-1]:
            numbers.entries.copy_(x)
        return numbers


class _Numbers(NamedTuple):
    """Memory of a tile, [heads, tokens, X] each.

    Attributes:
        features: Of all features, and then of the gradients at them.
        pairs: The features that begin with a product of two projections.
        single: Those that are one projection.
        entries: Those that are an entry of the row.
        projections: Of all projections, and then of the gradients at them.
        first: The projections that pairs begin with.
        of_single: Those that are features as they are.
        second: The projections of the second level.
        further: For each further level the features that are alive there, its projections, and
            what these features are before it.
    """

    features: Tensor
    pairs: Tensor
    single: Tensor
    entries: Tensor
    projections: Tensor
    first: Tensor
    of_single: Tensor
    second: Tensor
    further: list[tuple[Tensor, Tensor, Tensor]]


def _cut(memory: Tensor, sizes: list[int]) -> _Numbers:
    """Cut rows of features, projections level by level, what is kept of further ones, and rest."""
    pairs, single, entries, first, of_single, second, *others, _ = memory.split_with_sizes(
        sizes, -1
    )
    num_further = len(others) // 2
    further, befores = others[:num_further], others[num_further:]
    end_of_features = sum(sizes[:3])
    end_of_projections = sum(sizes[: 6 + num_further])
    steps = [
        (pairs[..., : level.shape[-1]], level, before)
        for level, before in zip(further, befores, strict=True)
    ]
    return _Numbers(
        features=memory[..., :end_of_features],
        pairs=pairs,
        single=single,
        entries=entries,
        projections=memory[..., end_of_features:end_of_projections],
        first=first,
        of_single=of_single,
        second=second,
        further=steps,
    )
