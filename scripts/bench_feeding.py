"""Measure how fast batches reach the model, and how fast softmax consumes them.

python scripts/bench_feeding.py task=image task.source=local task.source_dir=~/datasets

The options are those of macformer-train, for one task. Feeding is the data module alone, in
examples per second, from rows on the disk (memory-mapped) or on the device, padded to full length
or trimmed and bucketed. Training is the bare step of the recipe's model on the same batches.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from macformer.runs.build import build_data, build_model
from macformer.runs.config import compose
from macformer.training import classify

_FEEDING_SECONDS = 5.0
_TRAINING_STEPS = 2
_TRIMMED = ("task.trim_batches=true", "task.bucket_by_length=true")
_VARIANTS = {
    "memory-mapped": (),
    "memory-mapped, trimmed": _TRIMMED,
    "device-resident": ("task.device_resident=true",),
    "device-resident, trimmed": ("task.device_resident=true", *_TRIMMED),
}

Batch = Mapping[str, Tensor]


def main(overrides: Sequence[str]) -> None:
    """Print a table: one row for each way of feeding."""
    configs = {name: compose(*overrides, *variant) for name, variant in _VARIANTS.items()}
    rows = [
        {"feeding": name, **_measure(cfg, train=name.startswith("memory-mapped"))}
        for name, cfg in configs.items()
    ]
    cfg = configs["memory-mapped"]
    print(
        f"{cfg.task.name}, recipe {cfg.recipe.name}, "
        f"batches of {cfg.batch_size} x {cfg.max_seq_len}, {torch.get_num_threads()} threads; "
        "examples per second"
    )
    print(pd.DataFrame(rows, dtype=object).to_markdown(index=False, floatfmt=",.4g", missingval=""))


def _measure(cfg: DictConfig, *, train: bool) -> dict[str, float | None]:
    if cfg.num_threads is not None:
        torch.set_num_threads(cfg.num_threads)
    data = build_data(cfg)
    data.prepare_data()
    data.setup("fit")
    batches = iter(data.train_dataloader())
    fed = _examples_per_second(lambda: next(batches), seconds=_FEEDING_SECONDS)
    if not train:
        return {"fed": fed, "trained": None, "ratio": None}
    trained = _training_rate(cfg, batches)
    return {"fed": fed, "trained": trained, "ratio": fed / trained}


def _training_rate(cfg: DictConfig, batches: Iterator[Batch]) -> float:
    model = build_model(cfg)
    optimizer = torch.optim.AdamW(model.parameters())

    def step(batch: Batch) -> None:
        loss, *_ = classify(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(next(batches))
    taken = list(islice(batches, _TRAINING_STEPS))
    start = time.perf_counter()
    for batch in taken:
        step(batch)
    return sum(len(batch["labels"]) for batch in taken) / (time.perf_counter() - start)


def _examples_per_second(next_batch: Callable[[], Batch], *, seconds: float) -> float:
    next_batch()
    num_examples, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        num_examples += len(next_batch()["labels"])
    return num_examples / (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1:])
