"""A resumed run goes on where it stopped, and each part of a run is given the rows it should."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from tasks.feeding.data_module import TaskDataModule
from tasks.store.once import prepare_once
from tasks.store.rows import open_split
from tasks.store.write import Chunk, Contents, Split

# Where Slurm is installed, Lightning advises every trainer to start under it.
pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available")

NUM_ROWS = {"train": 23, "validation": 7, "test": 5}
BATCH_SIZE = 3
MAX_SEQ_LEN = 13


def prepare(data_dir: Path) -> Path:
    """Row i of a split consists of i % 11 + 1 tokens i, so that a batch tells its rows."""

    def chunks(num_rows: int):
        lengths = np.arange(num_rows) % 11 + 1
        yield Chunk(
            np.repeat(np.arange(num_rows, dtype=np.uint8), lengths),
            lengths,
            np.arange(num_rows) % 2,
        )

    return prepare_once(
        data_dir / "numbers",
        variant="test",
        parameters={},
        contents=lambda: Contents([Split(s, n, [partial(chunks, n)]) for s, n in NUM_ROWS.items()]),
        num_classes=2,
        paired=False,
        num_bytes=0,
    )


load = partial(open_split, first_id=1, vocab_size=24)


def data_module(data_dir: Path, **options) -> TaskDataModule:
    defaults = {
        "accumulate": 1,
        "padded_len": MAX_SEQ_LEN,
        "seed": 5,
        "device_resident": False,
        "trim_batches": False,
        "pad_to_multiple_of": 1,
        "bucket_by_length": False,
    }
    return TaskDataModule(
        prepare=prepare,
        load=load,
        data_dir=data_dir,
        batch_size=BATCH_SIZE,
        max_seq_len=MAX_SEQ_LEN,
        **defaults | options,
    )


def rows_of(batch: dict[str, torch.Tensor]) -> list[int]:
    return (batch["inputs"][:, 0] - 1).tolist()


class Recorder(pl.LightningModule):
    """Keeps the rows of each training batch; its one weight is there for Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.scored: list[int] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(rows_of(batch))
        self.optimizers().step()

    def validation_step(self, batch, batch_idx):
        self.scored += rows_of(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


# Lightning 2.6 asks torch 2.13 in a way that torch has deprecated.
ignore_leaf_spec = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


def fit(
    data_dir: Path,
    *,
    max_steps: int,
    ckpt_path: Path | None = None,
    limit_val_batches: int | float = 1.0,
    **options,
):
    module = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        limit_val_batches=limit_val_batches,
        check_val_every_n_epoch=None,
        val_check_interval=4,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data_module(data_dir, **options), ckpt_path=ckpt_path)
    return module, trainer


@ignore_leaf_spec
def test_a_run_resumed_twice_sees_the_batches_of_an_uninterrupted_one(tmp_path):
    whole, _ = fit(tmp_path, max_steps=19)
    checkpoint = tmp_path / "last.ckpt"
    first, trainer = fit(tmp_path, max_steps=6)
    trainer.save_checkpoint(checkpoint)
    second, trainer = fit(tmp_path, max_steps=13, ckpt_path=checkpoint)
    trainer.save_checkpoint(checkpoint)
    third, _ = fit(tmp_path, max_steps=19, ckpt_path=checkpoint)
    assert first.seen + second.seen + third.seen == whole.seen
    assert len(whole.seen) == 19


@ignore_leaf_spec
def test_validation_is_complete_in_every_check(tmp_path):
    module, _ = fit(tmp_path, max_steps=8)
    assert module.scored == [*range(NUM_ROWS["validation"])] * 2


@ignore_leaf_spec
@pytest.mark.parametrize(("limit", "num_rows"), [(1, BATCH_SIZE), (0.7, 2 * BATCH_SIZE)])
def test_a_limited_validation_scores_the_first_rows_and_not_the_shortest(
    tmp_path, monkeypatch, limit, num_rows
):
    # The longest row comes first.
    monkeypatch.setattr(
        "tasks.feeding.batches.longest_of_row", lambda rows, indices: len(rows) - indices
    )
    options = {"trim_batches": True, "bucket_by_length": True}
    module, _ = fit(tmp_path, max_steps=4, limit_val_batches=limit, **options)
    assert module.scored == [*range(num_rows)][::-1]


def test_data_are_checked_once(tmp_path):
    calls = []
    data = data_module(tmp_path)
    data.prepare = lambda data_dir: calls.append(data_dir) or prepare(data_dir)
    for _ in range(3):
        data.prepare_data()
        data.setup()
    assert calls == [tmp_path]


def test_a_rank_that_did_not_prepare_finds_the_data(tmp_path):
    digests = []
    for prepares in (True, False):
        data = data_module(tmp_path)
        if prepares:
            data.prepare_data()
        data.setup()
        digests.append(data.digest)
    assert digests[0] == digests[1]


def test_num_examples_and_majority_rate(tmp_path):
    data = data_module(tmp_path)
    data.setup()
    assert data.num_examples == NUM_ROWS
    assert data.majority_rate("test") == 3 / 5


def test_rows_are_padded_beyond_the_cut(tmp_path):
    data = data_module(tmp_path, padded_len=MAX_SEQ_LEN + 4)
    data.prepare_data()
    data.setup()
    for batches in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(batches))
        assert batch["inputs"].shape[1] == MAX_SEQ_LEN + 4
        assert batch["key_padding_mask"][:, MAX_SEQ_LEN:].all()


def test_padding_to_less_than_the_cut_is_refused(tmp_path):
    with pytest.raises(ValueError, match="padded_len 1 is below max_seq_len"):
        data_module(tmp_path, padded_len=1)


def test_bucketing_without_trimming_is_refused(tmp_path):
    with pytest.raises(ValueError, match="without trim_batches"):
        data_module(tmp_path, bucket_by_length=True)


def test_trimmed_batches_reach_from_short_rows_to_long_ones(tmp_path):
    """Rows of 1 to 11 tokens, in seven batches of three: the second, the fourth and the sixth."""
    data = data_module(tmp_path)
    data.setup()
    chosen = data.trimmed_batches(3)
    assert chosen is not None and len(chosen) == 3
    lengths = sorted((~batch["key_padding_mask"]).sum(1).tolist() for batch in chosen)
    ordered = sorted(i % 11 + 1 for i in range(NUM_ROWS["train"]))
    assert lengths == [ordered[3 * i : 3 * i + 3] for i in (1, 3, 5)]
    for batch in chosen:  # as wide as the longest row
        assert not batch["key_padding_mask"].all(0).any()
    assert [len(list(chosen)) for _ in range(2)] == [3, 3]


def test_trimmed_batches_are_as_large_as_those_of_their_split(tmp_path):
    """The two parts of a training step make one batch of six rows; a test has no parts."""
    data = data_module(tmp_path, accumulate=2)
    data.setup()
    loaders = {"train": data.train_dataloader(), "test": data.test_dataloader()}
    for split, rows in (("train", 2 * BATCH_SIZE), ("test", BATCH_SIZE)):
        chosen = data.trimmed_batches(1, split=split)
        assert chosen is not None
        assert [len(batch["inputs"]) for batch in chosen] == [rows]
        assert len(next(iter(loaders[split]))["inputs"]) == rows


def test_rows_without_padding_have_nothing_to_trim(tmp_path):
    data = data_module(tmp_path)
    data.max_seq_len = data.padded_len = 1
    data.setup()
    assert data.trimmed_batches(3) is None


@pytest.mark.parametrize(("trim", "width"), [(True, 2), (False, MAX_SEQ_LEN)])
def test_single_examples_are_spread_over_the_test_split(tmp_path, trim, width):
    data = data_module(tmp_path)
    data.setup()
    batches = list(data.single_examples(2, trim=trim))  # rows 1 and 3, of 2 and 4 tokens
    assert [batch["inputs"].count_nonzero().item() for batch in batches] == [2, 4]
    assert batches[0]["inputs"].shape == (1, width)
    assert all(("key_padding_mask" in batch) is not trim for batch in batches)
    assert len(list(data.single_examples(99, trim=trim))) == NUM_ROWS["test"]
