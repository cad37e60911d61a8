"""Measure what Lightning adds to a training step, and what a captured step saves.

python scripts/bench_step.py task=listops attention=rmfa_exp ppsbn=with
python scripts/bench_step.py task=text attention=rmfa_exp --vs trainer=captured \\
    --vs "trainer=captured attention=softmax"

The options are those of macformer-train. Each row of the table is one fit, with logger, metrics and
progress bar (on a terminal), between whose stretches of steps a bare loop takes as many: the same
model, optimiser and schedule, eager, in the same precision. A stretch is log_interval steps. Times
are CPU time of the process on a CPU, and wall time on a GPU that has finished its work. Rows of the
data are random and of full length, so that any task can be measured without its data; one is a
token shorter, so that batches have a padding mask. With --full none is, as in pictures, and no
batch has one.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback

from macformer.measuring import now
from macformer.runs import config
from macformer.runs.build import Run, build_run
from macformer.training.objectives import Batch, to_device
from macformer.training.step import Gradients, optimisation_step
from tasks.store.rows import TokenRows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: one row for the given options, and one for each variation of them."""
    parser = argparse.ArgumentParser(description="Measure what Lightning adds to a step.")
    parser.add_argument("overrides", nargs="*", help="options of macformer-train")
    parser.add_argument("--vs", action="append", default=[], help="options of a further row")
    parser.add_argument("--rounds", type=int, default=7, help="stretches of each loop")
    parser.add_argument("--full", action="store_true", help="no row has padding: no mask")
    args = parser.parse_args(arguments)
    rows = []
    for variation in ([], *(text.split() for text in args.vs)):
        overrides = [*args.overrides, *variation]
        try:
            times = measure(overrides, rounds=args.rounds, full=args.full)
        except (config.ConfigError, OSError) as error:
            parser.error(str(error))
        rows.append({"options": " ".join(overrides), **times})
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".4g"))


def measure(overrides: Sequence[str], *, rounds: int, full: bool) -> dict[str, object]:
    """Return the medians, in ms per step, and the ratio of neighbouring stretches."""
    turns = take_turns(overrides, rounds=rounds, full=full)
    ratios = [ours / bare for ours, bare in zip(turns.ours, turns.bare, strict=True)]
    return {
        "device": turns.device.type,
        "bare ms": 1e3 * statistics.median(turns.bare),
        "Lightning ms": 1e3 * statistics.median(turns.ours),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def take_turns(overrides: Sequence[str], *, rounds: int, full: bool) -> "TakeTurns":
    """Fit on random rows, with stretches of a bare loop in between."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = compose(overrides, rounds=rounds, run_dir=folder)
        if cfg.num_threads is not None:
            torch.set_num_threads(cfg.num_threads)
        run, twin = (build_run(cfg) for _ in range(2))
        run.data.prepare = lambda data_dir: data_dir
        run.data.load = partial(draw_rows, cfg, full=full)
        turns = TakeTurns(twin, stretch=cfg.log_interval)
        run.trainer.callbacks.append(turns)
        run.trainer.fit(run.module, run.data)
    return turns


def compose(overrides: Sequence[str], *, rounds: int, run_dir: str) -> DictConfig:
    """Compose a fit of a warm-up stretch and the rounds, without validation."""
    cfg = config.compose("logger=curve", f"paths.run_dir={run_dir}", *overrides)
    OmegaConf.update(cfg, "trainer.enable_checkpointing", False, force_add=True)
    cfg.max_steps = cfg.log_interval * (
        rounds + 2
    )  # the schedule of the bare loop, warmed up apart
    cfg.trainer.max_steps = cfg.log_interval * (rounds + 1)
    cfg.trainer.limit_val_batches = 0
    del cfg.callbacks.best, cfg.callbacks.last
    return cfg


def draw_rows(cfg: DictConfig, folder: Path, split: str, *, full: bool) -> TokenRows:
    """Draw rows of full length, or all but one, enough for a few batches."""
    num_rows, num_documents = 4 * cfg.batch_size, 2 if cfg.task.paired else 1
    documents = torch.arange(num_rows * num_documents)
    offsets = torch.arange(len(documents) + 1) * cfg.max_seq_len
    offsets[-1] -= 0 if full else 1
    return TokenRows(
        ids=torch.randint(cfg.task.vocab_size - 1, (len(documents) * cfg.max_seq_len,)),
        offsets=offsets,
        documents=documents.view(num_rows, 2) if cfg.task.paired else documents,
        labels=torch.randint(cfg.task.num_classes, (num_rows,)),
        first_id=1,
    )


class TakeTurns(Callback):
    """Let a bare loop and Lightning take turns, stretch by stretch.

    Attributes:
        ours: Seconds per step of Lightning's stretches, the first left out.
        bare: Seconds per step of the bare loop's.
    """

    def __init__(self, twin: Run, *, stretch: int):
        self.twin = twin
        self.stretch = stretch
        self.ours: list[float] = []
        self.bare: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.device = pl_module.device
        self._steps = bare_steps(self.twin, trainer)
        self._time_bare()
        self._started = now(self.device, cpu_time=True)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % self.stretch:
            return
        seconds = now(self.device, cpu_time=True) - self._started
        bare = self._time_bare()
        if trainer.global_step > self.stretch:
            self.ours.append(seconds / self.stretch)
            self.bare.append(bare / self.stretch)
        self._started = now(self.device, cpu_time=True)

    def _time_bare(self) -> float:
        started = now(self.device, cpu_time=True)
        for _ in range(self.stretch):
            next(self._steps)
        return now(self.device, cpu_time=True) - started


def bare_steps(twin: Run, trainer: pl.Trainer) -> Iterator[None]:
    """Take a step of the twin, on batches of the trainer's data, each time one is asked for."""
    module = twin.module.to(trainer.strategy.root_device).train()
    (optimizer,), (schedule,) = module.configure_optimizers()
    gradients = Gradients(
        module.model, objective=module.objective, accumulate=1, clip=module.clip, compile=None
    )

    def autocast_gradients(batch: Batch):
        with trainer.precision_plugin.forward_context():
            return gradients(batch)

    for batch in trainer.datamodule.train_dataloader():
        batch = to_device(batch, module.device)
        optimisation_step(autocast_gradients, batch, optimizer, schedule["scheduler"])
        yield


if __name__ == "__main__":
    main()
