"""Batches say where padding is only if a row of their split has some."""

from pathlib import Path

import pytest
import torch

from tasks.feeding.data_module import TaskDataModule
from tasks.store.manifest import SPLITS
from tasks.store.rows import TokenRows

MAX_SEQ_LEN = 13


def token_rows(*lengths: int, paired: bool = False, **options) -> TokenRows:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    documents = torch.arange(len(lengths))
    return TokenRows(
        ids=torch.arange(int(offsets[-1])) % 7 + 1,
        offsets=offsets,
        documents=documents.view(-1, 2) if paired else documents,
        labels=torch.zeros(len(lengths) // (1 + paired), dtype=torch.int64),
        first_id=1,
        **options,
    )


def data_of(data_dir: Path, rows: dict[str, TokenRows], **options) -> TaskDataModule:
    defaults = {
        "padded_len": MAX_SEQ_LEN,
        "trim_batches": False,
        "pad_to_multiple_of": 1,
    }
    data = TaskDataModule(
        prepare=lambda data_dir: data_dir,
        load=lambda folder, split: rows[split],
        data_dir=data_dir,
        batch_size=3,
        max_seq_len=MAX_SEQ_LEN,
        accumulate=1,
        seed=5,
        device_resident=False,
        bucket_by_length=False,
        **defaults | options,
    )
    data.setup()
    return data


def loaders(data: TaskDataModule) -> dict:
    batches = [*zip(data.train_dataloader(), range(3), strict=False)]
    train = [batch for batch, _ in batches]
    return dict(zip(SPLITS, (train, data.val_dataloader(), data.test_dataloader()), strict=True))


def test_batches_of_a_split_have_a_mask_if_one_of_its_rows_has_padding(tmp_path):
    """Training rows are full, those of validation are cut to it, one of the test is shorter."""
    rows = {
        "train": token_rows(*[MAX_SEQ_LEN] * 9),
        "validation": token_rows(*[MAX_SEQ_LEN + 2] * 4),
        "test": token_rows(*[MAX_SEQ_LEN] * 5, 4),
    }
    for split, batches in loaders(data_of(tmp_path, rows)).items():
        has_mask = ["key_padding_mask" in batch for batch in batches]
        assert set(has_mask) == {split == "test"} and len(has_mask) > 1


@pytest.mark.parametrize(
    ("lengths", "rows", "options", "expected"),
    [
        ([5] * 6, {}, {}, True),
        ([5] * 6, {}, {"trim_batches": True}, False),
        ([5] * 5 + [6], {}, {"trim_batches": True}, True),
        ([5] * 6, {}, {"trim_batches": True, "pad_to_multiple_of": 4}, True),
        ([8] * 6, {}, {"trim_batches": True, "pad_to_multiple_of": 4}, False),
        ([13] * 6, {}, {"padded_len": 14}, True),
        ([12] * 6, {"eos_id": 9}, {}, False),
        ([13] * 6, {"zero_is_padding": True}, {}, True),
        ([13] * 6, {"paired": True}, {}, False),
        ([13] * 5 + [12], {"paired": True}, {}, True),
    ],
)
def test_a_mask_is_there_for_what_may_be_padding(tmp_path, lengths, rows, options, expected):
    split = token_rows(*lengths, **rows)
    for batches in loaders(data_of(tmp_path, dict.fromkeys(SPLITS, split), **options)).values():
        for batch in batches:
            assert ("key_padding_mask" in batch) is expected
            if not expected:
                assert batch["inputs"].all()


def test_whether_there_is_a_mask_is_not_asked_of_the_device(tmp_path):
    """The rows are moved where no value can be read."""
    data = data_of(tmp_path, dict.fromkeys(SPLITS, token_rows(*[MAX_SEQ_LEN] * 6)))
    data.rows = {split: rows.to("meta") for split, rows in data.rows.items()}
    for batches in loaders(data).values():
        assert all(set(batch) == {"inputs", "labels"} for batch in batches)
