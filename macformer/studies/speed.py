r"""Speed and memory of each attention over the length of the sequence.

Times follow :math:`t \propto N^s`: the slope s of log time over log length is 2 for exact attention
and 1 for a linear one, once the length outweighs what does not depend on it.
"""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, cast

import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from macformer.benchmark.cases import check_rows
from macformer.benchmark.cli import check_options
from macformer.benchmark.measure import run_benchmark
from macformer.benchmark.table import length_exponent
from macformer.plotting import draw_over_length
from macformer.studies.seeds import mean_sd, over_seeds

VALUES = {"ms": "time (ms)", "peak MiB": "peak memory (MiB)"}
# One of each kind, where more are measured than lines can be told apart.
DRAWN = ("softmax", "kernelized_exp", "rmfa_exp", "rfa", "performer", "linear")
DRAWN += ("longformer", "h_transformer", "nystrom", "uniform")


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List lengths and seeds: attentions are timed in turns, so that drift is shared."""
    options = _options(cfg, cfg.grid.length)
    check_options(options)
    check_rows(options)
    return [{"length": length, "seed": seed} for length in cfg.grid.length for seed in cfg.seeds]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Time every attention at one length."""
    torch.manual_seed(point["seed"])
    for row in run_benchmark(_options(cfg, [point["length"]])).to_dict("records"):
        kept = ("attention", "mode", "ms", "ratio", "spread", "peak MiB", "GFLOP", "failure")
        yield {str(key): row[key] for key in kept}


def _options(cfg: DictConfig, lengths: Sequence[int]) -> DictConfig:
    """Return the options of the benchmark that a study sets, over its defaults."""
    defaults = OmegaConf.create(files("configs").joinpath("benchmark.yaml").read_text())
    own = {
        "device": cfg.device,
        "threads": cfg.threads,
        "length": list(lengths),
        "config_dirs": list(cfg.paths.config_dirs),
    }
    options = OmegaConf.merge(defaults, cfg.study.settings, {"rounds": cfg.grid.rounds}, own)
    return cast(DictConfig, options)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show time relative to softmax at each length, the slopes, and the peak at the longest."""
    rows, longest = [], frame["length"].max()
    for (attention, mode), group in frame.groupby(["attention", "mode"], sort=False):
        ratios = over_seeds(group, ["length"], "ratio").set_index("length")
        row = {"attention": attention, "mode": mode}
        for length in sorted(frame["length"].unique()):
            ratio = ratios.reindex([length]).iloc[0]
            row[f"time / softmax at {length:,}"] = mean_sd(ratio["mean"], ratio["std"], digits=2)
        row["slope of time"] = length_exponent(group, "ms")
        row["slope of memory"] = length_exponent(group, "peak MiB")
        row[f"peak MiB at {longest:,}"] = group.loc[group["length"] == longest, "peak MiB"].mean()
        row["not measured"] = "; ".join(group["failure"].dropna().unique()) or None
        rows.append(row)
    shown = pd.DataFrame(rows).sort_values("mode", kind="stable")
    return shown if shown["not measured"].any() else shown.drop(columns="not measured")


def plot(frame: pd.DataFrame) -> Figure:
    """Draw time and memory over length in both modes, of ten attentions at most."""
    if frame["attention"].nunique() > len(DRAWN):
        frame = pd.concat([frame[frame["attention"] == name] for name in DRAWN])
    return draw_over_length(frame, VALUES)
