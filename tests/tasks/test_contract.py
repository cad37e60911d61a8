"""What every task promises, checked on each YAML of configs/task."""

from contextlib import nullcontext
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

import configs
from macformer.attention import softmax
from macformer.runs.build import build_model
from macformer.runs.config import compose
from macformer.training import classify
from tasks.feeding.collate import gather_batch
from tasks.feeding.data_module import TaskDataModule
from tasks.store.manifest import SPLITS

TASKS = sorted(path.stem for path in (Path(configs.__file__).parent / "task").glob("[!_]*.yaml"))
BATCH_SIZE = 3
MAX_SEQ_LEN = 67

# What makes each task small; tests/tasks/conftest.py writes the sources.
GENERATED = {"num_examples": {"train": 11, "validation": 5, "test": 7}, "num_workers": 1}
RECALL = {"num_examples": {"train": 11, "validation": 5, "test": 7}, "max_len": MAX_SEQ_LEN - 1}
SMALL = {
    "listops": GENERATED | {"min_len": 10},
    "listops_short": GENERATED | {"min_len": 10},
    "listops_small": GENERATED | {"min_len": 10},
    "text": {"source": "local", "source_rows": {"train": 20, "test": 6}},
    "image": {"source": "local", "source_rows": {"train": 30, "test": 7}},
    "retrieval": {"num_examples": {"train": 11, "validation": 5, "test": 3}},
    "pathfinder": {"num_examples": {"train": 10, "validation": 4, "test": 6}, "num_workers": 1},
    "pathfinder64": {"num_examples": {"train": 4, "validation": 4, "test": 2}, "num_workers": 1},
    "pathx": {"num_examples": {"train": 4, "validation": 4, "test": 2}, "num_workers": 1},
    "mqar": RECALL | {"num_pairs": 7},
    "mqar_small": RECALL,
    "selective_copy": RECALL,
    "selective_copy_small": RECALL,
}


# Tasks whose rows are all longer than batches here, and one whose test split is not.
FULL = {"image", "pathfinder", "pathfinder64", "pathx"}
NOT_FULL = {("text", "test")}


def test_every_task_is_checked():
    assert set(TASKS) == set(SMALL)
    assert len(TASKS) == 13


@pytest.fixture(scope="module", params=TASKS)
def task_config(request, sources, few_images_per_chunk):
    """Compose one task, small, with what the rest of the configuration gives it."""
    cfg = compose(f"task={request.param}", f"max_seq_len={MAX_SEQ_LEN}", "attention=softmax")
    small = dict(SMALL[request.param])
    if request.param in sources:
        small["source_dir"] = str(sources[request.param])
    return OmegaConf.merge(cfg, {"task": small})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def data_module(task_config, data_dir):
    return build(task_config, data_dir)


def build(cfg, data_dir: Path) -> TaskDataModule:
    task = cfg.task
    data = TaskDataModule(
        prepare=hydra.utils.instantiate(task.prepare),
        load=hydra.utils.instantiate(task.load),
        data_dir=data_dir,
        batch_size=BATCH_SIZE,
        accumulate=1,
        max_seq_len=cfg.max_seq_len,
        padded_len=cfg.max_seq_len,
        seed=0,
        device_resident=task.device_resident,
        trim_batches=task.trim_batches,
        pad_to_multiple_of=1,
        bucket_by_length=task.bucket_by_length,
    )
    data.prepare_data()
    data.setup()
    return data


def test_batches_are_of_the_agreed_form(task_config, data_module):
    task = task_config.task
    sides = (2,) if task.paired else ()
    train = [batch for batch, _ in zip(data_module.train_dataloader(), range(7), strict=False)]
    assert all(len(batch["labels"]) == BATCH_SIZE for batch in train)
    for batch in (*train, *data_module.val_dataloader(), *data_module.test_dataloader()):
        ids, padding, labels = batch["inputs"], padding_of(batch), batch["labels"]
        assert set(batch) - {"places", "key_padding_mask"} == {"inputs", "labels"}
        assert labels.shape == batch.get("places", labels).shape
        assert ids.shape == padding.shape == (len(labels), *sides, MAX_SEQ_LEN)
        assert (ids.dtype, padding.dtype, labels.dtype) == (torch.int64, torch.bool, torch.int64)
        assert ids.min() >= 0 and ids.max() < task.vocab_size
        assert labels.min() >= 0 and labels.max() < task.num_classes
        assert torch.equal(padding, ids == 0)
        assert not padding[..., 0].any()


def padding_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return where padding is; nowhere in a batch without a mask."""
    return batch.get("key_padding_mask", torch.zeros_like(batch["inputs"], dtype=torch.bool))


def test_attention_gets_a_mask_only_where_rows_of_the_split_have_padding(
    task_config, data_module, monkeypatch
):
    """So that on a GPU flash attention, which refuses masks, can take full rows."""
    masks, kernels = [], []

    fastest = softmax.fastest_kernel

    def choose(query, key, value, mask, dropout):
        masks.append(mask)
        kernels.append(fastest(query, key, value, mask, dropout).name)
        return fastest(query, key, value, mask, dropout)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(softmax, "can_use_cudnn_attention", lambda inputs: False)
    monkeypatch.setattr(softmax, "can_use_flash_attention", lambda inputs: inputs.attn_mask is None)
    monkeypatch.setattr(softmax, "can_use_efficient_attention", lambda inputs: True)
    monkeypatch.setattr(softmax, "has_choice", lambda query: True)
    monkeypatch.setattr(softmax, "fastest_kernel", choose)
    monkeypatch.setattr(softmax, "sdpa_kernel", lambda kernel: nullcontext())
    model = build_model(task_config)
    loaders = data_module.train_dataloader(), data_module.val_dataloader()
    for split, batches in zip(SPLITS, (*loaders, data_module.test_dataloader()), strict=True):
        masks.clear(), kernels.clear()
        batch = next(iter(batches))
        classify(model, batch)
        rows = data_module.rows[split]
        full = int(rows.lengths(torch.arange(len(rows))).min()) >= MAX_SEQ_LEN
        assert full or task_config.task.name not in FULL
        assert not full or (task_config.task.name, split) not in NOT_FULL
        num_layers = len(model.encoder.layers)
        mask = None if full else batch["inputs"].ne(0).flatten(0, -2)[:, None, None, :]
        torch.testing.assert_close(masks, [mask] * num_layers)
        assert kernels == ["FLASH_ATTENTION" if full else "EFFICIENT_ATTENTION"] * num_layers


def test_evaluation_sees_each_row_once(task_config, data_module):
    for split, batches in (
        ("validation", data_module.val_dataloader()),
        ("test", data_module.test_dataloader()),
    ):
        labels = torch.cat([batch["labels"] for batch in batches])
        assert len(labels) == data_module.num_examples[split]
        counts = torch.bincount(labels.flatten())
        assert data_module.majority_rate(split) == counts.max().item() / labels.numel()


def test_splits_are_disjoint(task_config, data_module):
    train, validation, test = (inputs_of(data_module, split) for split in SPLITS)
    assert not train & validation and not train & test and not validation & test


def inputs_of(data_module: TaskDataModule, split: str) -> set[tuple[int, ...]]:
    rows = data_module.rows[split]
    everything = torch.arange(len(rows))
    longest = int(rows.lengths(everything).max())
    batch = gather_batch(rows, everything, max_len=longest, padded_len=longest)
    return {tuple(ids[ids > 0].tolist()) for ids in batch["inputs"]}


def test_the_same_seed_gives_the_same_bytes(task_config, data_module, tmp_path):
    again = build(task_config, tmp_path / "again")
    for split in SPLITS:
        assert torch.equal(data_module.rows[split].ids, again.rows[split].ids)
        assert torch.equal(data_module.rows[split].labels, again.rows[split].labels)


def test_an_end_of_sequence_needs_one_more_id(task_config, data_dir):
    task = task_config.task
    cfg = OmegaConf.merge(
        task_config, {"task": {"append_eos": True, "vocab_size": task.vocab_size + 1}}
    )
    for batch in build(cfg, data_dir).val_dataloader():
        last = (~padding_of(batch)).sum(-1, keepdim=True) - 1
        assert (batch["inputs"].gather(-1, last) == task.vocab_size).all()


def test_trimming_leaves_out_nothing_but_padding(task_config, data_dir):
    full, trimmed = (
        build(OmegaConf.merge(task_config, {"task": {"trim_batches": trim}}), data_dir)
        for trim in (False, True)
    )
    for expected, batch in zip(full.val_dataloader(), trimmed.val_dataloader(), strict=True):
        width = batch["inputs"].shape[-1]
        assert not padding_of(batch).all(dim=tuple(range(batch["inputs"].ndim - 1)))[-1]
        assert torch.equal(batch["inputs"], expected["inputs"][..., :width])
        assert torch.equal(padding_of(batch), padding_of(expected)[..., :width])
        assert padding_of(expected)[..., width:].all()
