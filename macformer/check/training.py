"""Train a variant for a minute on short ListOps, as macformer-train would."""

import csv
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from macformer.record import CURVE_NAME, read_metrics, write_config
from macformer.runs.config import ConfigError, compose
from macformer.runs.overrides import write_override
from macformer.runs.process import run_in_process
from macformer.runs.variants import Variant

OPTIONS = ("task=listops_short", "recipe=smoke", "logger=curve", "log_interval=1")
OPTIONS += ("warmup_batches=1", "overwrite=true", "exclusive=false", "sweep=check")


@dataclass(frozen=True)
class Training:
    """What came of a run.

    Attributes:
        failure: Why it failed, None where it ended.
        steps: How many it took.
        first_loss: The mean loss of the first quarter of the steps.
        last_loss: That of the last quarter.
        accuracy: Of the last weights, on the test rows.
        majority: The share of the commonest class there.
    """

    failure: str | None = None
    steps: int = 0
    first_loss: float = math.nan
    last_loss: float = math.nan
    accuracy: float = math.nan
    majority: float = math.nan

    @property
    def is_sound(self) -> bool:
        return self.failure is None and self.last_loss < self.first_loss


def train(
    variant: Variant, *, out: Path, steps: int | None, seconds: float, options: Sequence[str]
) -> Training:
    """Train and test a variant in a process of its own, in a folder below ``out``.

    Args:
        steps: How many at most; None for as many as the recipe has.
        seconds: After which training ends, whatever its step.
        options: Further ones of macformer-train, which win.
    """
    places = {"paths.output_dir": str(out), "paths.data_dir": str(out / "data")}
    limits = {} if steps is None else {"max_steps": steps, "eval_interval": steps}
    own = [write_override(name, value) for name, value in {**places, **limits}.items()]
    limit = {"_target_": "macformer.check.time_limit.TimeLimit", "seconds": seconds}
    own += [f"{variant.group}={variant.name}", write_override("+callbacks.time_limit", limit)]
    try:
        cfg = compose(*OPTIONS, *own, *options, config_dirs=[variant.folder])
    except ConfigError as error:
        return Training(failure=str(error))
    run_dir = Path(cfg.paths.run_dir)
    write_config(run_dir, cfg)
    finished = run_in_process(run_dir, overwrite=True)
    metrics = read_metrics(run_dir) or {}
    if not finished:
        return Training(failure=metrics.get("reason") or "stopped from outside")
    losses = _read_losses(run_dir / CURVE_NAME)
    quarter = max(1, len(losses) // 4)
    return Training(
        steps=metrics["train"]["steps"],
        first_loss=statistics.fmean(losses[:quarter]),
        last_loss=statistics.fmean(losses[-quarter:]),
        accuracy=metrics["accuracy"]["last"]["test"],
        majority=metrics["majority_rate"],
    )


def _read_losses(curve: Path) -> list[float]:
    with curve.open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
