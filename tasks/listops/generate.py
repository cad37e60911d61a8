"""Generate ListOps (Nangia & Bowman, 2018) from the distribution of Long Range Arena.

An example and its label (parentheses, which carry no information, are left out):

    [MAX 2 9 [MIN 4 7 ] 0 ]   ->   9

Trees are drawn level by level, thousands at a time: the shapes first, whose lengths decide which
trees are kept, and operators and digits only for those.
"""

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy.random import PCG64, Generator, SeedSequence

from tasks.errors import DataError, check_wholes
from tasks.parallel import ordered_map

VOCABULARY: tuple[str, ...] = ("<pad>", "[MIN", "[MAX", "[MED", "[SM", "]", *"0123456789")

_FIRST_OPERATOR = VOCABULARY.index("[MIN")
_CLOSE = VOCABULARY.index("]")
_FIRST_DIGIT = VOCABULARY.index("0")

_TREES_PER_CHUNK = 8192
_MAX_BARREN_CHUNKS = 64
_MOST_ARGS = 255  # that a byte can count

Expressions = tuple[
    UInt8[np.ndarray, "tokens"], Int64[np.ndarray, "examples"], UInt8[np.ndarray, "examples"]
]


class _Shape(NamedTuple):
    """One level of many trees: how many arguments each node has, 0 at a digit."""

    arity: UInt8[np.ndarray, "nodes"]
    nodes_per_tree: Int64[np.ndarray, "trees"]


class _Level(NamedTuple):
    """One level of the kept trees; value and length (in tokens) are those of a node's subtree."""

    arity: UInt8[np.ndarray, "nodes"]
    token: UInt8[np.ndarray, "nodes"]
    value: UInt8[np.ndarray, "nodes"]
    length: Int64[np.ndarray, "nodes"]


def check_law(*, min_len: int, max_len: int, max_depth: int, max_args: int) -> None:
    """Refuse sizes that no expression can have.

    Raises:
        DataError: With the option and what is allowed.
    """
    check_wholes(max_len=max_len, max_depth=max_depth)
    check_wholes(min_len=min_len, least=0)
    check_wholes(max_args=max_args, least=2)
    if max_len - min_len < 2:
        raise DataError(
            f"task.min_len is {min_len} and task.max_len is {max_len}; a length must lie strictly "
            "between them"
        )
    if max_args > _MOST_ARGS:
        raise DataError(f"task.max_args is {max_args}; it must be at most {_MOST_ARGS}")


def generate_listops(
    num_examples: int,
    *,
    seed: int,
    min_len: int,
    max_len: int,
    max_depth: int,
    max_args: int,
    num_workers: int,
) -> Iterator[Expressions]:
    """Yield distinct expressions in chunks of (token ids end to end, lengths, labels).

    A node above the last level is an operator with probability 1/4 and takes 2 to max_args
    arguments; a tree is kept if min_len < length < max_len (google-research/long-range-arena,
    lra_benchmarks/data/listops.py). The stream depends on the seed alone, not on num_workers, and a
    shorter one is the beginning of a longer one.

    Raises:
        DataError: If fewer than num_examples expressions were found.
    """
    sample = partial(
        _sample_chunk,
        seed=seed,
        min_len=min_len,
        max_len=max_len,
        max_depth=max_depth,
        max_args=max_args,
    )
    return _take_distinct(ordered_map(sample, count(), num_workers=num_workers), num_examples)


def _take_distinct(chunks: Iterator[Expressions], num_examples: int) -> Iterator[Expressions]:
    seen: set[bytes] = set()
    barren_chunks = 0
    while len(seen) < num_examples:
        ids, lengths, labels = next(chunks)
        fresh = np.zeros(len(lengths), dtype=bool)
        for i, expression in enumerate(np.split(ids, np.cumsum(lengths))[:-1]):
            digest = blake2b(expression.tobytes(), digest_size=16).digest()
            if digest not in seen and len(seen) < num_examples:
                seen.add(digest)
                fresh[i] = True
        if fresh.any():
            barren_chunks = 0
            yield ids[np.repeat(fresh, lengths)], lengths[fresh], labels[fresh]
        else:
            barren_chunks += 1
        if barren_chunks == _MAX_BARREN_CHUNKS:
            raise DataError(
                f"found only {len(seen)} of {num_examples} distinct expressions; allow a wider "
                "range of lengths (task.min_len, task.max_len), a greater task.max_depth or "
                "task.max_args"
            )


def _sample_chunk(
    chunk: int, *, seed: int, min_len: int, max_len: int, max_depth: int, max_args: int
) -> Expressions:
    # The bit generator is named because numpy may change its default one.
    rng = Generator(PCG64(SeedSequence(seed, spawn_key=(chunk,))))
    shapes, lengths = _draw_shapes(rng, max_len=max_len, max_depth=max_depth, max_args=max_args)
    keep = (min_len < lengths) & (lengths < max_len)
    arities = [arity[np.repeat(keep, nodes_per_tree)] for arity, nodes_per_tree in shapes]
    levels = _fill(rng, arities)
    return _write(levels), levels[0].length, levels[0].value


def _draw_shapes(
    rng: Generator, *, max_len: int, max_depth: int, max_args: int
) -> tuple[list[_Shape], Int64[np.ndarray, "trees"]]:
    """Draw trees level by level; one whose length reaches max_len grows no further."""
    nodes_per_tree = np.ones(_TREES_PER_CHUNK, dtype=np.int64)
    lengths = nodes_per_tree.copy()
    shapes = []
    for depth in range(1, max_depth + 1):
        arity = np.zeros(nodes_per_tree.sum(), dtype=np.uint8)
        shapes.append(_Shape(arity, nodes_per_tree))
        if depth == max_depth or arity.size == 0:
            break
        is_operator = rng.integers(0, 4, size=arity.size, dtype=np.uint8) == 0
        arity[is_operator] = rng.integers(
            2, max_args + 1, size=np.count_nonzero(is_operator), dtype=np.uint8
        )
        num_children = _sum_runs(arity, nodes_per_tree)
        # An operator node has its closing bracket as a second token.
        lengths += num_children + _sum_runs(is_operator, nodes_per_tree)
        nodes_per_tree = np.where(lengths < max_len, num_children, 0)
    return shapes, lengths


def _fill(rng: Generator, arities: list[UInt8[np.ndarray, "_"]]) -> list[_Level]:
    """Draw operators and digits, and evaluate each subtree from the leaves up."""
    levels: list[_Level] = []
    for arity in reversed(arities):
        value = rng.integers(0, 10, size=arity.size, dtype=np.uint8)
        token = value + np.uint8(_FIRST_DIGIT)
        length = np.ones(arity.size, dtype=np.int64)
        is_operator = arity > 0
        if is_operator.any():
            num_args = arity[is_operator]
            operator = rng.integers(0, 4, size=num_args.size, dtype=np.uint8)
            token[is_operator] = operator + np.uint8(_FIRST_OPERATOR)
            value[is_operator] = _apply(operator, levels[-1].value, num_args)
            length[is_operator] = 2 + _sum_runs(levels[-1].length, num_args)
        levels.append(_Level(arity, token, value, length))
    return levels[::-1]


def _apply(
    operator: UInt8[np.ndarray, "operators"],
    arguments: UInt8[np.ndarray, "arguments"],
    num_args: UInt8[np.ndarray, "operators"],
) -> UInt8[np.ndarray, "operators"]:
    """Apply each operator to its own run of the arguments."""
    column = np.arange(num_args.max())
    table = np.full((num_args.size, column.size), 255, dtype=np.uint8)
    table[column < num_args[:, None]] = arguments
    table.sort(axis=1)
    row = np.arange(num_args.size)
    middle = table[row, (num_args - 1) // 2] + table[row, num_args // 2]
    total = _sum_runs(arguments, num_args) % 10
    return np.choose(
        operator, [table[:, 0], table[row, num_args - 1], middle // 2, total.astype(np.uint8)]
    )


def _write(levels: list[_Level]) -> UInt8[np.ndarray, "tokens"]:
    """Write the trees one after another, each in prefix order, from the roots down."""
    ids = np.empty(levels[0].length.sum(), dtype=np.uint8)
    start = _exclusive_cumsum(levels[0].length)
    for level, next_level in zip(levels, [*levels[1:], None], strict=True):
        ids[start] = level.token
        is_operator = level.arity > 0
        if next_level is None or not is_operator.any():
            break
        first = start[is_operator]
        ids[first + level.length[is_operator] - 1] = _CLOSE
        num_args = level.arity[is_operator]
        start = _exclusive_cumsum(next_level.length)
        start += np.repeat(first + 1 - start[_exclusive_cumsum(num_args)], num_args)
    return ids


def _sum_runs(
    values: UInt8[np.ndarray, "values"] | Bool[np.ndarray, "values"] | Int64[np.ndarray, "values"],
    run_lengths: UInt8[np.ndarray, "runs"] | Int64[np.ndarray, "runs"],
) -> Int64[np.ndarray, "runs"]:
    """Sum consecutive runs of values; an empty run sums to 0."""
    sums = np.zeros(run_lengths.size, dtype=np.int64)
    filled = run_lengths > 0
    if values.size:
        starts = _exclusive_cumsum(run_lengths)[filled]
        sums[filled] = np.add.reduceat(values, starts, dtype=np.int64)
    return sums


def _exclusive_cumsum(
    values: UInt8[np.ndarray, "_"] | Int64[np.ndarray, "_"],
) -> Int64[np.ndarray, "_"]:
    return np.cumsum(values, dtype=np.int64) - values
