"""The table of a benchmark: a row for each case, beside softmax and over the lengths."""

import statistics

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from macformer.benchmark.cases import Case
from macformer.benchmark.peers import SDPA_KERNELS

BASELINES = ("softmax", *SDPA_KERNELS)


def describe_case(case: Case, cfg: DictConfig, ceilings: tuple[float, float]) -> dict[str, object]:
    """Say what was measured of a case, and what shares of the device's best rates that is."""
    seconds = case.seconds or [float("nan")]
    median = statistics.median(seconds)
    itemsize = getattr(torch, cfg.dtype).itemsize
    tensors = 4 if case.mode == "forward" else 12  # q, k, v, o; then q, k, v, o, do, dq, dk, dv
    size = cfg.batch_size * cfg.num_heads * case.length * cfg.head_dim * itemsize
    gigabytes = tensors * size / 1e9  # that any method moves
    return {
        "attention": case.attention,
        "mode": case.mode,
        "length": case.length,
        "rounds": len(case.seconds),
        "ms": 1e3 * median,
        "spread": (max(seconds) - min(seconds)) / median,
        "peak MiB": case.peak_mib,
        "GFLOP": case.gflop,
        "share of FLOP/s": case.gflop / median / ceilings[0],
        "MB": 1e3 * gigabytes,
        "share of bandwidth": gigabytes / median / ceilings[1],
        "failure": case.failure,
    }


def relate(table: pd.DataFrame) -> pd.DataFrame:
    """Add the ratio to softmax, and the power of the length by which the time grows.

    On a GPU softmax counts as its fastest kernel does, whichever torch would have chosen.
    """
    softmax = table[table.attention.isin(BASELINES)]
    base = softmax.groupby(["mode", "length"]).ms.min()
    keys = pd.MultiIndex.from_frame(table[["mode", "length"]])
    place = list(table.columns).index("ms") + 1
    table.insert(place, "ratio", table.ms / base.reindex(keys).to_numpy())
    slopes = {
        name: length_exponent(group, "ms") for name, group in table.groupby(["attention", "mode"])
    }
    names = zip(table.attention, table["mode"], strict=True)
    table.insert(place + 1, "slope", [slopes[name] for name in names])
    return table


def length_exponent(rows: pd.DataFrame, column: str) -> float:
    """Fit the power of the length by which a column grows, over the longest lengths.

    Those from a quarter of the longest on, where the length outweighs what does not depend on it;
    NaN where fewer than two of them were measured.
    """
    measured = rows.dropna(subset=[column])
    measured = measured[measured["length"] >= measured["length"].max() / 4]
    if measured["length"].nunique() < 2:
        return float("nan")
    return float(np.polyfit(np.log(measured["length"]), np.log(measured[column]), 1)[0])
