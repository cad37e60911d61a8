"""Feed any task to Lightning, and know where in the training stream a run stands."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tasks.errors import DataError
from tasks.feeding.batches import (
    ChosenBatches,
    EvaluationBatches,
    TrainingBatches,
    longest_of_row,
    sort_by_length,
)
from tasks.feeding.collate import gather_batch, has_padding
from tasks.feeding.lightning_counters import num_batches_processed
from tasks.feeding.masking import HiddenTokens, HiddenTokensOfSplit
from tasks.store.describe import describe
from tasks.store.manifest import SPLITS, read_manifest
from tasks.store.once import name_folder
from tasks.store.rows import Rows, TokenRows


class TaskDataModule(pl.LightningDataModule):
    """Batches of one task: inputs, key_padding_mask (True at padding), labels, perhaps places.

    Batches of a split in which no row has padding have no mask.

    Training is one endless stream whose position is part of a checkpoint: a resumed run sees the
    batches that an uninterrupted one would have seen.

    Args:
        prepare: Called with data_dir; makes the data set if needed and returns its folder.
        load: Called with that folder and the name of a split.
        batch_size: Rows per batch and rank.
        accumulate: Training batches that are given as one, for a step to take apart again.
        max_seq_len: Rows are cut at this length.
        padded_len: And padded to this one.
        seed: Decides the order of training.
        device_resident: Whether the rows live on the accelerator, where batches are gathered.
        trim_batches: Whether a batch is padded to its longest row instead of padded_len.
        pad_to_multiple_of: Of which the widths of trimmed batches are multiples, up to
            max_seq_len: a few shapes in place of many.
        bucket_by_length: Whether a batch holds rows of similar length; of use with trim_batches.
        hidden_share: Of the tokens of each row that are hidden and asked for, in place of the
            row's label; None asks for the label.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[Path], Path],
        load: Callable[[Path, str], Rows],
        data_dir: Path | str,
        batch_size: int,
        accumulate: int,
        max_seq_len: int,
        padded_len: int,
        seed: int,
        device_resident: bool,
        trim_batches: bool,
        pad_to_multiple_of: int,
        bucket_by_length: bool,
        hidden_share: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("batch_size", batch_size),
            ("accumulate", accumulate),
            ("max_seq_len", max_seq_len),
            ("pad_to_multiple_of", pad_to_multiple_of),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if padded_len < max_seq_len:
            raise ValueError(f"padded_len {padded_len} is below max_seq_len {max_seq_len}")
        if hidden_share is not None and not 0 < hidden_share < 1:
            raise ValueError(f"hidden_share is {hidden_share}; it must be between 0 and 1")
        if bucket_by_length and not trim_batches:
            raise ValueError("bucket_by_length=true has no effect without trim_batches=true")
        self.prepare = prepare
        self.load = load
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.max_seq_len = max_seq_len
        self.padded_len = padded_len
        self.seed = seed
        self.device_resident = device_resident
        self.trim_batches = trim_batches
        self.pad_to_multiple_of = pad_to_multiple_of
        self.bucket_by_length = bucket_by_length
        self.hidden_share = hidden_share
        self.rows: dict[str, Rows] = {}
        self._has_padding: dict[str, bool] = {}
        self._folder: Path | None = None
        self._start = 0

    def prepare_data(self) -> None:
        # Lightning calls this before each fit, validation and test; checking reads all files, so
        # it is done once.
        if self._folder is None:
            self._folder = self.prepare(self.data_dir)

    def setup(self, stage: str | None = None) -> None:
        if self.rows:
            return
        self.rows = {split: self.load(self._prepared(), split) for split in SPLITS}
        for split, rows in self.rows.items():
            self._check_cut(split, rows)
            if self.hidden_share is not None and not isinstance(rows, TokenRows):
                raise DataError("rows of this task hold numbers; pretrain=mlm hides tokens")
        self._has_padding = {
            split: has_padding(
                rows,
                torch.arange(len(rows)),
                max_len=self.max_seq_len,
                padded_len=self._padded_len,
                multiple_of=self.pad_to_multiple_of,
            )
            for split, rows in self.rows.items()
        }
        if self.device_resident:
            device = self.trainer.strategy.root_device if self.trainer else "cpu"
            self.rows = {split: rows.to(device) for split, rows in self.rows.items()}

    def train_dataloader(self) -> TrainingBatches | HiddenTokens:
        batches = TrainingBatches(
            seed=self.seed,
            start=self.num_batches_consumed,
            **self._options("train"),
        )
        if self.hidden_share is None:
            return batches
        return HiddenTokens(
            batches, share=self.hidden_share, num_asked=self._num_asked, seed=self.seed
        )

    def val_dataloader(self) -> EvaluationBatches | HiddenTokensOfSplit:
        limit = self.trainer.limit_val_batches if self.trainer else None
        return self._evaluation("validation", limit)

    def test_dataloader(self) -> EvaluationBatches | HiddenTokensOfSplit:
        return self._evaluation("test", self._test_limit)

    @property
    def _test_limit(self) -> int | float | None:
        return self.trainer.limit_test_batches if self.trainer else None

    def _evaluation(
        self, split: str, limit: int | float | None
    ) -> EvaluationBatches | HiddenTokensOfSplit:
        batches = EvaluationBatches(limit=limit, **self._options(split))
        if self.hidden_share is None:
            return batches
        return HiddenTokensOfSplit(batches, share=self.hidden_share, num_asked=self._num_asked)

    @property
    def _num_asked(self) -> int:
        """Count the places at which each row is asked: those hidden in padded_len tokens."""
        assert self.hidden_share is not None
        return max(1, round(self.hidden_share * self.padded_len))

    @property
    def num_examples(self) -> dict[str, int]:
        return {split: len(rows) for split, rows in self.rows.items()}

    def majority_rate(self, split: str) -> float:
        """Return the share of a split's most frequent class, or token: of the best one answer."""
        labels = iter([self.rows[split].labels])
        if self.hidden_share is not None:
            labels = (batch["labels"] for batch in self._evaluation(split, None))
        parts = [torch.bincount(part.flatten().long()) for part in labels]
        counts = pad_sequence(parts, batch_first=True).sum(0)
        return counts.max().item() / counts.sum().item()

    @property
    def digest(self) -> str:
        """Return one checksum for all splits: other data, whatever their names, have another."""
        return read_manifest(self._prepared())["digest"]

    @property
    def folder_name(self) -> str:
        """Return the name of the prepared folder, which stands for the source and the options."""
        return self._prepared().name

    def digest_now(self, folder_name: str | None) -> str | None:
        """Return the digest of the data that a run would find now; None if they are not there.

        Data from a source that has changed since are prepared.

        Args:
            folder_name: That of the data before.
        """
        folder = name_folder(self.prepare, self.data_dir)
        if not folder.exists() and folder_name in (None, folder.name):
            return None
        return self.digest

    @property
    def floors(self) -> dict[str, Any]:
        """Return what shallow predictors reach on the test split.

        Each name has its accuracy from 0 to 1, its recipe in words and num_train_rows; an empty
        mapping for data that are too few to tell, and where tokens are asked for.
        """
        if self.hidden_share is not None:
            return {}
        return read_manifest(self._prepared()).get("floors", {})

    def trimmed_batches(self, number: int, *, split: str = "train") -> ChosenBatches | None:
        """Choose batches as trimming and bucketing make them, from short to long rows.

        They are evenly spread over the split in the order of its lengths, and as large as the
        split's own: those of training hold all parts of a step. None where no row has padding, so
        that there is nothing to trim.
        """
        rows = self.rows[split]
        order = sort_by_length(rows, torch.arange(len(rows)))
        shortest = min(int(longest_of_row(rows, order[:1])), self.max_seq_len)
        size = self._rows_per_batch(split)
        num_batches = len(rows) // size
        if shortest >= self.padded_len or not num_batches:
            return None
        batches = order[: num_batches * size].view(num_batches, size)
        chosen = _spread(min(number, num_batches), num_batches)
        return ChosenBatches(
            rows, [*batches[chosen]], max_seq_len=self.max_seq_len, padded_len=None
        )

    def single_examples(self, number: int, *, trim: bool) -> ChosenBatches:
        """Choose rows of the test split, evenly spread over it, one for each batch.

        Args:
            trim: Whether they are without padding.
        """
        rows = self.rows["test"]
        return ChosenBatches(
            rows,
            _spread(min(number, len(rows)), len(rows)).split(1),
            max_seq_len=self.max_seq_len,
            padded_len=None if trim else self.padded_len,
        )

    def describe(self) -> list[str]:
        """Name the prepared folder, and describe each of its splits in a line."""
        return [str(self._prepared()), *describe(self._prepared())]

    def test_rows(self) -> Int[Tensor, "rows"]:
        """Return the rows of this rank's share of the test split, in the order of its batches."""
        batches = EvaluationBatches(limit=self._test_limit, **self._options("test"))
        return torch.cat(batches.batches)

    @property
    def num_batches_consumed(self) -> int:
        """Count the training batches that a step was taken on, not those only prefetched."""
        if self.trainer is None:
            return self._start
        return max(self._start, num_batches_processed(self.trainer))

    def state_dict(self) -> dict[str, Any]:
        return {"num_batches_consumed": self.num_batches_consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._start = state_dict["num_batches_consumed"]

    def _check_cut(self, split: str, rows: Rows) -> None:
        """Refuse to cut off an end that was kept on purpose, or a token at which a row is asked."""
        longest = int(rows.lengths(torch.arange(len(rows))).max())
        if rows.keeps_end and longest > self.max_seq_len:
            raise DataError(
                f"max_seq_len is {self.max_seq_len}, but rows of the {split} split have up to "
                f"{longest} tokens and were cut so as to keep their end; give a smaller "
                "task.max_len instead"
            )
        if not isinstance(rows, TokenRows) or rows.places is None:
            return
        last = int(rows.places.max())
        if last >= self.max_seq_len - (rows.eos_id is not None):
            raise DataError(
                f"max_seq_len is {self.max_seq_len}, but rows of the {split} split are asked at "
                f"their token {last + 1}; it must leave room for that"
            )

    def _prepared(self) -> Path:
        # Lightning calls prepare_data on one rank of a node only.
        self.prepare_data()
        assert self._folder is not None
        return self._folder

    @property
    def _padded_len(self) -> int | None:
        return None if self.trim_batches else self.padded_len

    def _rows_per_batch(self, split: str) -> int:
        return self.batch_size * (self.accumulate if split == "train" else 1)

    def _options(self, split: str) -> dict[str, Any]:
        rows = self.rows[split]
        gather = partial(
            gather_batch,
            rows,
            max_len=self.max_seq_len,
            padded_len=self._padded_len,
            multiple_of=self.pad_to_multiple_of,
            masked=self._has_padding[split],
        )
        return {
            "rows": rows,
            "gather": gather,
            "batch_size": self._rows_per_batch(split),
            "rank": self.trainer.global_rank if self.trainer else 0,
            "num_ranks": self.trainer.world_size if self.trainer else 1,
            "bucket_by_length": self.bucket_by_length,
        }


def _spread(number: int, size: int) -> Int[Tensor, "number"]:
    """Return places evenly spread over a sequence of some size."""
    return ((torch.arange(number) + 0.5) * size / number).long()
