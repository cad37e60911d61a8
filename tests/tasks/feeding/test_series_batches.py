"""Series of several channels are cut, padded and kept in their channels."""

from functools import partial

import numpy as np
import torch

from tasks.feeding.batches import EvaluationBatches
from tasks.feeding.collate import gather_batch
from tasks.store.manifest import channel_statistics
from tasks.store.once import prepare_once
from tasks.store.rows import SeriesRows, open_series
from tasks.store.write import Chunk, Contents, Split

LENGTHS = [3, 1, 5]


def rows() -> SeriesRows:
    values = torch.arange(2 * sum(LENGTHS), dtype=torch.float32).reshape(-1, 2) + 1
    values[2, 1] = float("nan")
    return SeriesRows(
        values=values,
        offsets=torch.tensor([0, 3, 4, 9]),
        documents=torch.arange(3),
        labels=torch.tensor([0, 1, 0], dtype=torch.uint8),
    )


def test_a_batch_holds_the_values_and_zero_at_padding():
    batch = gather_batch(rows(), torch.tensor([2, 0]), max_len=4, padded_len=5)
    assert batch["inputs"].shape == (2, 5, 2) and batch["inputs"].dtype == torch.float32
    assert batch["key_padding_mask"].tolist() == [[False] * 4 + [True], [False] * 3 + [True] * 2]
    torch.testing.assert_close(batch["inputs"][0, :4], rows().values[4:8])
    torch.testing.assert_close(batch["inputs"][1, :3], rows().values[:3], equal_nan=True)
    assert not batch["inputs"][batch["key_padding_mask"]].any()
    assert batch["labels"].tolist() == [0, 0]


def test_batches_of_series_are_in_the_order_of_their_lengths():
    batches = EvaluationBatches(
        rows(),
        gather=partial(gather_batch, rows(), max_len=5, padded_len=None),
        batch_size=2,
        rank=0,
        num_ranks=1,
        limit=None,
        bucket_by_length=True,
    )
    assert [batch["inputs"].shape for batch in batches] == [(2, 3, 2), (1, 5, 2)]


def test_what_was_written_is_opened_with_the_statistics_of_its_channels(tmp_path):
    values = np.random.default_rng(0).normal([3.0, -40.0], [2.0, 0.5], (9, 2)).astype(np.float32)
    values[4, 0] = np.nan

    def part():
        yield Chunk(values, np.array(LENGTHS), np.array([0, 1, 0]))

    def contents() -> Contents:
        splits = [Split(name, 3, [part]) for name in ("train", "validation", "test")]
        return Contents(splits, num_channels=2)

    folder = prepare_once(
        tmp_path,
        variant="series",
        parameters={},
        contents=contents,
        num_classes=2,
        paired=False,
        num_bytes=0,
    )
    found = open_series(folder, "train", num_channels=2)
    np.testing.assert_array_equal(found.values.numpy(), values)
    assert found.lengths(torch.arange(3)).tolist() == LENGTHS
    mean, deviation = channel_statistics(values)
    np.testing.assert_allclose(mean, np.nanmean(values.astype(float), axis=0))
    np.testing.assert_allclose(deviation, np.nanstd(values.astype(float), axis=0))
