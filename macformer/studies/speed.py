r"""Speed and memory of each attention over the length of the sequence.

Times follow :math:`t \propto N^s`: the slope s of log time over log length is 2 for exact attention
and 1 for a linear one, once the length outweighs what does not depend on it. It is taken over
the longest lengths, those from a quarter of the longest on.
"""

from collections.abc import Iterable
from importlib.resources import files
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from macformer.benchmark.measure import run_benchmark
from macformer.studies.summary import draw_legend, draw_lines, draw_panels, mean_sd, over_seeds

VALUES = {"ms": "time (ms)", "peak MiB": "peak memory (MiB)"}


def cells(cfg: DictConfig) -> list[dict[str, Any]]:
    """List lengths and seeds: attentions are timed in turns, so that drift is shared."""
    return [{"length": length, "seed": seed} for length in cfg.grid.length for seed in cfg.seeds]


def measure(cell: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Time every attention at one length."""
    defaults = OmegaConf.create(files("configs").joinpath("benchmark.yaml").read_text())
    own = {"device": cfg.device, "threads": cfg.threads, "length": [cell["length"]]}
    options = OmegaConf.merge(defaults, cfg.study.settings, {"rounds": cfg.grid.rounds}, own)
    torch.manual_seed(cell["seed"])
    for row in run_benchmark(cast(DictConfig, options)).to_dict("records"):
        kept = ("attention", "mode", "ms", "ratio", "spread", "peak MiB", "GFLOP", "failure")
        yield {str(key): row[key] for key in kept}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show time relative to softmax at each length, the slopes, and the peak at the longest."""
    rows = []
    for (attention, mode), group in frame.groupby(["attention", "mode"], sort=False):
        ratios = over_seeds(group, ["length"], "ratio").set_index("length")
        longest = group["length"].max()
        row = {"attention": attention, "mode": mode}
        for length in sorted(frame["length"].unique()):
            ratio = ratios.reindex([length]).iloc[0]
            row[f"time / softmax at {length:,}"] = mean_sd(ratio["mean"], ratio["std"], digits=2)
        row["slope of time"] = slope(group, "ms")
        row["slope of memory"] = slope(group, "peak MiB")
        row[f"peak MiB at {longest:,}"] = group.loc[group["length"] == longest, "peak MiB"].mean()
        rows.append(row)
    return pd.DataFrame(rows).sort_values("mode", kind="stable")


def slope(group: pd.DataFrame, value: str) -> float:
    """Fit the power of the length over lengths from a quarter of the longest on; NaN for one."""
    measured = group.dropna(subset=[value])
    measured = measured[measured["length"] >= measured["length"].max() / 4]
    if measured["length"].nunique() < 2:
        return float("nan")
    return float(np.polyfit(np.log(measured["length"]), np.log(measured[value]), 1)[0])


def plot(frame: pd.DataFrame) -> Figure:
    """Draw time and memory over length in both modes, all axes logarithmic."""
    modes = list(frame["mode"].unique())
    attentions = list(frame["attention"].unique())
    titles = [f"{mode.replace('_', ' + ')}" for _ in VALUES for mode in modes]
    figure, axes = draw_panels(titles, num_columns=len(modes))
    panels = [(value, mode) for value in VALUES for mode in modes]
    for axis, (value, mode) in zip(axes, panels, strict=True):
        shown = frame[(frame["mode"] == mode) & (frame[value] > 0)]
        draw_lines(axis, shown, x="length", y=value, line="attention", names=attentions)
        axis.set(xscale="log", yscale="log", ylabel=VALUES[value])
        axis.set_xscale("log", base=2)
    draw_legend(figure, axes)
    return figure
