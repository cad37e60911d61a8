"""Training is a stream that the seed and the step decide, and evaluation sees each row once."""

from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch

from tasks.errors import DataError
from tasks.feeding.batches import EvaluationBatches, TrainingBatches
from tasks.feeding.collate import gather_batch
from tasks.store.rows import TokenRows

NUM_ROWS = 23
BATCH_SIZE = 3
MAX_SEQ_LEN = 13


@pytest.fixture
def train_rows():
    """Row i consists of i % 11 + 1 tokens i, so that a batch tells its rows."""
    lengths = torch.arange(NUM_ROWS) % 11 + 1
    return TokenRows(
        ids=torch.arange(NUM_ROWS).repeat_interleave(lengths),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        documents=torch.arange(NUM_ROWS),
        labels=torch.arange(NUM_ROWS) % 2,
        first_id=1,
    )


def rows_of(batch: dict[str, torch.Tensor]) -> list[int]:
    return (batch["inputs"][:, 0] - 1).tolist()


def stream(rows, num_batches, *, start=0, **options):
    defaults = {"seed": 5, "rank": 0, "num_ranks": 1, "bucket_by_length": False}
    batches = TrainingBatches(
        rows,
        gather=partial(gather_batch, rows, max_len=MAX_SEQ_LEN, padded_len=MAX_SEQ_LEN),
        batch_size=BATCH_SIZE,
        start=start,
        **defaults | options,
    )
    return [rows_of(batch) for batch, _ in zip(batches, range(num_batches), strict=False)]


@pytest.mark.parametrize("bucket_by_length", [False, True])
def test_each_epoch_holds_a_row_at_most_once(train_rows, bucket_by_length):
    batches_per_epoch = NUM_ROWS // BATCH_SIZE
    batches = stream(train_rows, 2 * batches_per_epoch, bucket_by_length=bucket_by_length)
    for epoch in (batches[:batches_per_epoch], batches[batches_per_epoch:]):
        rows = [row for batch in epoch for row in batch]
        assert len(set(rows)) == len(rows) == batches_per_epoch * BATCH_SIZE
    assert batches[:batches_per_epoch] != batches[batches_per_epoch:]


@pytest.mark.parametrize("start", [1, 6, 7, 8, 17])
def test_the_stream_can_be_entered_anywhere(train_rows, start):
    assert stream(train_rows, 4, start=start) == stream(train_rows, start + 4)[start:]


def test_the_seed_decides_the_order(train_rows):
    assert stream(train_rows, 7, seed=5) == stream(train_rows, 7, seed=5)
    assert stream(train_rows, 7, seed=5) != stream(train_rows, 7, seed=6)


def test_ranks_share_an_epoch(train_rows):
    batches_per_epoch = NUM_ROWS // (2 * BATCH_SIZE)
    first, second = (
        stream(train_rows, batches_per_epoch, rank=rank, num_ranks=2) for rank in (0, 1)
    )
    rows = [row for batch in first + second for row in batch]
    assert len(set(rows)) == len(rows) == batches_per_epoch * 2 * BATCH_SIZE


def test_too_few_rows_for_a_batch(train_rows):
    with pytest.raises(DataError, match="23 training rows do not fill a batch of 3 on each of 8"):
        stream(train_rows, 1, num_ranks=8)


def evaluation(rows, *, rank=0, num_ranks=1, limit=None, bucket_by_length=False):
    batches = EvaluationBatches(
        rows,
        gather=partial(gather_batch, rows, max_len=MAX_SEQ_LEN, padded_len=None),
        batch_size=BATCH_SIZE,
        rank=rank,
        num_ranks=num_ranks,
        limit=limit,
        bucket_by_length=bucket_by_length,
    )
    return [rows_of(batch) for batch in batches]


@pytest.mark.parametrize("bucket_by_length", [False, True])
@pytest.mark.parametrize("num_ranks", [1, 3])
@pytest.mark.parametrize("limit", [None, 2, 0.5])
def test_evaluation_sees_every_row_once(train_rows, num_ranks, bucket_by_length, limit):
    options = {"num_ranks": num_ranks, "bucket_by_length": bucket_by_length, "limit": limit}
    batches = [b for rank in range(num_ranks) for b in evaluation(train_rows, rank=rank, **options)]
    assert sorted(row for batch in batches for row in batch) == list(range(NUM_ROWS))


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("limit", [4, 0.5, 99, 1.0])
def test_a_limited_evaluation_scores_the_same_rows_when_sorted(train_rows, num_ranks, limit):
    for rank in range(num_ranks):
        plain, sorted_by_length = (
            evaluation(
                train_rows, rank=rank, num_ranks=num_ranks, limit=limit, bucket_by_length=bucket
            )
            for bucket in (False, True)
        )
        taken = int(limit * len(plain)) if isinstance(limit, float) else min(limit, len(plain))
        rows = [[*chain(*batches[:taken])] for batches in (plain, sorted_by_length)]
        assert sorted(rows[0]) == sorted(rows[1])
        lengths = [row % 11 for row in rows[1]]
        assert lengths == sorted(lengths)


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("bucket_by_length", [False, True])
def test_a_limited_evaluation_of_a_sorted_file_scores_a_fair_sample(num_ranks, bucket_by_length):
    """Half of the rows have one class; its share of 120 that are drawn has an error of 0.035."""
    rows = TokenRows(
        ids=torch.arange(300),
        offsets=torch.arange(301),
        documents=torch.arange(300),
        labels=torch.arange(300) // 150,
        first_id=1,
        in_file_order=True,
    )
    options = {"num_ranks": num_ranks, "bucket_by_length": bucket_by_length}
    scored, twice = [], []
    for rank in range(num_ranks):
        batches = evaluation(rows, rank=rank, limit=40 // num_ranks, **options)
        assert batches == evaluation(rows, rank=rank, limit=40 // num_ranks, **options)
        scored += chain(*batches[: 40 // num_ranks])
        twice += chain(*batches)
    assert len(scored) == 120 and sorted(twice) == list(range(300))
    assert np.mean(np.array(scored) < 150) == pytest.approx(0.5, abs=4 * 0.035)
    whole = [evaluation(rows, rank=rank, **options) for rank in range(num_ranks)]
    assert [*chain(*chain(*whole))] == list(range(300))
