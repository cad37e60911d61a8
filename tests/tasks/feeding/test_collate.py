"""Batches against rows worked out by hand."""

import pytest
import torch

from tasks.feeding.collate import gather_batch
from tasks.store.rows import TokenRows

# Documents: [7], [5, 0, 3], [9, 8, 6, 4, 2]
IDS = torch.tensor([7, 5, 0, 3, 9, 8, 6, 4, 2], dtype=torch.uint8)
OFFSETS = torch.tensor([0, 1, 4, 9])


def rows_of(documents: list, **options) -> TokenRows:
    return TokenRows(
        ids=IDS,
        offsets=OFFSETS,
        documents=torch.tensor(documents, dtype=torch.int32),
        labels=torch.arange(len(documents), dtype=torch.uint8),
        **{"first_id": 1} | options,
    )


@pytest.mark.parametrize(
    ("max_len", "padded_len", "expected"),
    [
        pytest.param(7, 7, [[10, 9, 7, 5, 3, 0, 0], [8, 0, 0, 0, 0, 0, 0]], id="padded"),
        pytest.param(7, None, [[10, 9, 7, 5, 3], [8, 0, 0, 0, 0]], id="trimmed"),
        pytest.param(3, 3, [[10, 9, 7], [8, 0, 0]], id="cut"),
        pytest.param(3, 5, [[10, 9, 7, 0, 0], [8, 0, 0, 0, 0]], id="padded beyond the cut"),
    ],
)
def test_rows_are_cut_and_padded(max_len, padded_len, expected):
    batch = gather_batch(
        rows_of([0, 1, 2]), torch.tensor([2, 0]), max_len=max_len, padded_len=padded_len
    )
    assert batch["inputs"].tolist() == expected
    assert batch["key_padding_mask"].tolist() == [[i == 0 for i in row] for row in expected]
    assert batch["labels"].tolist() == [2, 0]
    assert batch["inputs"].dtype == batch["labels"].dtype == torch.int64
    assert batch["key_padding_mask"].dtype == torch.bool


@pytest.mark.parametrize(
    ("max_len", "multiple_of", "width"), [(9, 3, 6), (9, 5, 5), (9, 8, 8), (7, 8, 7), (4, 8, 4)]
)
def test_widths_of_trimmed_batches_are_multiples_up_to_the_cut(max_len, multiple_of, width):
    rows, longest = rows_of([0, 1, 2]), torch.tensor([2, 0])  # of 5 tokens
    trimmed, coarse = (
        gather_batch(rows, longest, max_len=max_len, padded_len=None, multiple_of=n)
        for n in (1, multiple_of)
    )
    assert coarse["inputs"].shape == (2, width)
    held = trimmed["inputs"].shape[1]
    assert torch.equal(coarse["inputs"][:, :held], trimmed["inputs"])
    assert coarse["key_padding_mask"][:, held:].all()


def test_a_pair_is_two_rows():
    batch = gather_batch(
        rows_of([[0, 2], [1, 1], [2, 0]]), torch.tensor([2, 1]), max_len=4, padded_len=4
    )
    assert batch["inputs"].tolist() == [
        [[10, 9, 7, 5], [8, 0, 0, 0]],
        [[6, 1, 4, 0], [6, 1, 4, 0]],
    ]
    assert batch["key_padding_mask"].shape == (2, 2, 4)
    assert batch["labels"].tolist() == [2, 1]


def test_a_stored_zero_is_a_token():
    batch = gather_batch(rows_of([0, 1]), torch.tensor([1]), max_len=3, padded_len=3)
    assert batch["inputs"].tolist() == [[6, 1, 4]]
    assert not batch["key_padding_mask"].any()


def test_zero_is_padding():
    rows = rows_of([0, 1], first_id=0, zero_is_padding=True)
    batch = gather_batch(rows, torch.tensor([1]), max_len=4, padded_len=4)
    assert batch["inputs"].tolist() == [[5, 0, 3, 0]]
    assert batch["key_padding_mask"].tolist() == [[False, True, False, True]]


@pytest.mark.parametrize(
    ("max_len", "padded_len", "expected"),
    [
        pytest.param(7, 7, [[8, 99, 0, 0, 0, 0, 0], [10, 9, 7, 5, 3, 99, 0]], id="padded"),
        pytest.param(7, None, [[8, 99, 0, 0, 0, 0], [10, 9, 7, 5, 3, 99]], id="trimmed"),
        pytest.param(4, 4, [[8, 99, 0, 0], [10, 9, 7, 99]], id="cut"),
    ],
)
def test_the_last_token_of_a_row_is_its_end(max_len, padded_len, expected):
    rows = rows_of([0, 1, 2], eos_id=99)
    batch = gather_batch(rows, torch.tensor([0, 2]), max_len=max_len, padded_len=padded_len)
    assert batch["inputs"].tolist() == expected
    assert batch["key_padding_mask"].tolist() == [[i == 0 for i in row] for row in expected]
    assert rows.lengths(torch.tensor([0, 2])).tolist() == [2, 6]
