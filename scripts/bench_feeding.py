"""Measure how fast batches reach the model, and how fast softmax consumes them.

python scripts/bench_feeding.py task=image task.source=local task.source_dir=~/datasets

The options are those of macformer-train, for one task. Feeding is the data module alone, in
examples per second, from rows on the disk (memory-mapped) or on the device, padded to full length
or trimmed and bucketed, until a batch is on the device. Training is the bare step of the recipe's
model on the same batches. The device is the GPU, where there is one; on the CPU rows are resident
either way, so that only two rows are shown.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from macformer.measuring import now
from macformer.runs.build import build_data, build_model
from macformer.runs.config import ConfigError, compose
from macformer.training import classify
from macformer.training.objectives import to_device

_FEEDING_SECONDS = 5.0
_TRAINING_STEPS = 2
_TRIMMED = ("task.trim_batches=true", "task.bucket_by_length=true")
_RESIDENT = "task.device_resident=true"
_VARIANTS = {
    "memory-mapped": (),
    "memory-mapped, trimmed": _TRIMMED,
    "device-resident": (_RESIDENT,),
    "device-resident, trimmed": (_RESIDENT, *_TRIMMED),
}

Batch = Mapping[str, Tensor]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: one row for each way of feeding."""
    parser = argparse.ArgumentParser(description="Measure how fast batches reach the model.")
    parser.add_argument("overrides", nargs="*", help="options of macformer-train")
    overrides = parser.parse_args(arguments).overrides
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        configs = {
            name: compose(*overrides, *variant)
            for name, variant in _VARIANTS.items()
            if device.type != "cpu" or _RESIDENT not in variant
        }
    except ConfigError as error:
        parser.error(str(error))
    rows = [{"feeding": name, **_measure(cfg, device)} for name, cfg in configs.items()]
    cfg = configs["memory-mapped"]
    print(
        f"{cfg.task.name}, recipe {cfg.recipe.name}, "
        f"batches of {cfg.batch_size} x {cfg.max_seq_len} on {device}, "
        f"{torch.get_num_threads()} threads; examples per second"
    )
    print(pd.DataFrame(rows, dtype=object).to_markdown(index=False, floatfmt=",.4g", missingval=""))


def _measure(cfg: DictConfig, device: torch.device) -> dict[str, float]:
    if cfg.num_threads is not None:
        torch.set_num_threads(cfg.num_threads)
    data = build_data(cfg)
    data.prepare_data()
    data.setup("fit")
    if cfg.task.device_resident:
        # A trainer would have said which device it is.
        data.rows = {split: rows.to(device) for split, rows in data.rows.items()}
    batches = map(partial(to_device, device=device), data.train_dataloader())
    fed = _examples_per_second(batches, device, seconds=_FEEDING_SECONDS)
    trained = _training_rate(cfg, batches, device)
    return {"fed": fed, "trained": trained, "ratio": fed / trained}


def _training_rate(cfg: DictConfig, batches: Iterator[Batch], device: torch.device) -> float:
    model = build_model(cfg).to(device)
    optimizer = torch.optim.AdamW(model.parameters())

    def step(batch: Batch) -> None:
        loss, *_ = classify(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(next(batches))
    taken = list(islice(batches, _TRAINING_STEPS))
    start = now(device)
    for batch in taken:
        step(batch)
    return sum(len(batch["labels"]) for batch in taken) / (now(device) - start)


def _examples_per_second(
    batches: Iterator[Batch], device: torch.device, *, seconds: float
) -> float:
    next(batches)
    num_examples, start = 0, now(device)
    while time.perf_counter() - start < seconds:
        num_examples += len(next(batches)["labels"])
    return num_examples / (now(device) - start)


if __name__ == "__main__":
    main()
