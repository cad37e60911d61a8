"""Decide which rows make up which batch; each stream can be entered at any batch.

Plain iterables instead of a DataLoader: a batch is one gather, which worker processes only slow
down, and there is nothing that Lightning could replace under several ranks.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Int
from numpy.random import PCG64, Generator, SeedSequence
from torch import Tensor

from tasks.errors import DataError
from tasks.feeding.collate import gather_batch, has_padding
from tasks.store.rows import Rows

Gather = Callable[[Int[Tensor, "B"]], dict[str, Tensor]]  # makes a batch of the rows of a split

_BATCHES_PER_POOL = 64
_SEED = 0  # of the rows that a limited evaluation scores


class TrainingBatches:
    """Batch after batch without end; batch t depends on (seed, t) alone.

    Every epoch is a new permutation of the rows, cut into full global batches of which each rank
    takes its own slice; the incomplete rest of a permutation is dropped.

    Args:
        batch_size: Rows of one rank's batch.
        gather: Makes a batch of these rows, as :func:`tasks.feeding.collate.gather_batch` does.
        start: First batch to yield.
        bucket_by_length: Whether a batch holds rows of similar length: each run of 64 global
            batches is sorted by length, cut into batches, and these are shuffled.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        gather: Gather,
        batch_size: int,
        seed: int,
        rank: int,
        num_ranks: int,
        start: int,
        bucket_by_length: bool,
    ) -> None:
        self.rows = rows
        self.gather = gather
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.num_ranks = num_ranks
        self.start = start
        self.bucket_by_length = bucket_by_length
        self.batches_per_epoch = len(rows) // (batch_size * num_ranks)
        if not self.batches_per_epoch:
            raise DataError(
                f"{len(rows)} training rows do not fill a batch of {batch_size} on each of "
                f"{num_ranks} ranks; choose a smaller batch_size"
            )

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        epoch, first = divmod(self.start, self.batches_per_epoch)
        while True:
            batches = self.order(epoch)[first:, self.rank].to(self.rows.device)
            for indices in batches:
                yield self.gather(indices)
            epoch, first = epoch + 1, 0

    def order(self, epoch: int) -> Int[Tensor, "batches ranks B"]:
        """Return the rows of each batch of an epoch."""
        rng = Generator(PCG64(SeedSequence(self.seed, spawn_key=(epoch,))))
        order = torch.from_numpy(rng.permutation(len(self.rows)))
        order = order[: self.batches_per_epoch * self.num_ranks * self.batch_size]
        if self.bucket_by_length:
            pool_size = _BATCHES_PER_POOL * self.num_ranks * self.batch_size
            order = torch.cat([sort_by_length(self.rows, pool) for pool in order.split(pool_size)])
        order = order.view(self.batches_per_epoch, self.num_ranks, self.batch_size)
        if self.bucket_by_length:
            order = order[torch.from_numpy(rng.permutation(len(order)))]
        return order


class EvaluationBatches:
    """Every row exactly once over all ranks together, in order but for what is said below.

    The last batch may be smaller.

    Args:
        gather: Makes a batch of these rows, as :func:`tasks.feeding.collate.gather_batch` does.
        limit: Batches of a rank that will be scored, as a number or as a share; None: all. These
            come first: the first rows, or, of a file that may be sorted, rows drawn from all.
        bucket_by_length: Whether rows come in the order of their lengths instead. Which rows are
            scored does not depend on it.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        gather: Gather,
        batch_size: int,
        rank: int,
        num_ranks: int,
        limit: int | float | None,
        bucket_by_length: bool,
    ) -> None:
        self.gather = gather
        first, last = (len(rows) * r // num_ranks for r in (rank, rank + 1))
        order = torch.arange(first, last)
        num_scored = batch_size * _num_batches(limit, of=-(-len(order) // batch_size))
        if rows.in_file_order and num_scored < len(order):
            drawn = torch.from_numpy(Generator(PCG64(_SEED)).permutation(len(order)))
            order = torch.cat([order[part.sort().values] for part in _split(drawn, num_scored)])
        if bucket_by_length:
            parts = _split(order, num_scored)
            order = torch.cat([sort_by_length(rows, part) for part in parts])
        self.batches = order.to(rows.device).split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for indices in self.batches:
            yield self.gather(indices)


class ChosenBatches:
    """Batches of given rows, as often as one goes through them; masked if any holds padding.

    Args:
        batches: The rows of each.
        padded_len: Length that rows are padded to; None pads to the longest row of a batch.
    """

    def __init__(
        self,
        rows: Rows,
        batches: Sequence[Int[Tensor, "_"]],
        *,
        max_seq_len: int,
        padded_len: int | None,
    ) -> None:
        self.batches = [batch.to(rows.device) for batch in batches]
        lengths = {"max_len": max_seq_len, "padded_len": padded_len}
        masked = any(has_padding(rows, batch, **lengths) for batch in self.batches)
        self.gather = partial(gather_batch, rows, **lengths, masked=masked)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for indices in self.batches:
            yield self.gather(indices)


def sort_by_length(rows: Rows, indices: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Put rows in the order of their lengths, equally long ones in the order given."""
    return indices[longest_of_row(rows, indices).argsort(stable=True)]


def longest_of_row(rows: Rows, indices: Int[Tensor, "rows"]) -> Int[Tensor, "rows"]:
    """Return the length of each row, for a pair that of its longer document."""
    lengths = rows.lengths(indices.to(rows.device)).cpu()
    return lengths if lengths.ndim == 1 else lengths.amax(dim=1)


def _split(indices: Int[Tensor, "n"], place: int) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
    return indices[:place], indices[place:]


def _num_batches(limit: int | float | None, *, of: int) -> int:
    """Count the batches that Lightning takes: a float is a share, an integer a number."""
    if limit is None:
        return of
    return int(limit * of) if isinstance(limit, float) else min(limit, of)
