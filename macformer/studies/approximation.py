"""The error of random Maclaurin features against exact attention, one factor at a time.

Queries and keys are tokens of a few clusters, of one norm, and values follow the clusters of the
keys. The error of the output is relative to what attention adds to the mean of the values.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import normalize

from macformer.attention import kernels, samplers
from macformer.attention.maclaurin.kernels import Kernel
from macformer.features.error import (
    concentration_bound,
    error_over_signal,
    estimate_kernel,
    predicted_deviation,
)
from macformer.features.search import attend_exactly
from macformer.ops import maclaurin_attention
from macformer.plotting import draw_lines, draw_panels
from macformer.runs.allowed import COUNT, POSITIVE, list_of, one_of, whole
from macformer.studies.seeds import find_centre, mean_sd

FACTORS = {
    "num_features": "features",
    "head_dim": "head width",
    "length": "length",
    "norm": "norm of queries and keys",
}
NUM_PAIRED = 128  # tokens whose kernel matrix is compared: its error does not depend on the length
ALLOWED = {
    "study.settings.num_draws": whole(2),  # of which the bias has a standard error
    "grid.kernel": list_of(one_of("exp", "trigh", "inv", "log", "sqrt")),
    "grid.sampler": list_of(one_of("iid", "code", "optimal")),
    "grid.num_features": list_of(COUNT, least=0),
    "grid.head_dim": list_of(COUNT, least=0),
    "grid.length": list_of(whole(NUM_PAIRED), least=0),
    "grid.norm": list_of(POSITIVE, least=0),
}


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List the points along each factor, all others at their centre."""
    along = [
        {"varied": factor, **cfg.study.settings.centre, factor: value}
        for factor in FACTORS
        for value in cfg.grid[factor]
    ]
    combinations = product(cfg.grid.kernel, cfg.grid.sampler, along, cfg.seeds)
    return [
        {"kernel": kernel, "sampler": sampler, **point, "seed": seed}
        for kernel, sampler, point, seed in combinations
    ]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Compare many draws of the features with the exact kernel."""
    torch.manual_seed(point["seed"])
    width, count = point["head_dim"], point["num_features"]
    query, key, value = clustered_tokens(point["length"], width, **cfg.study.settings.tokens)
    query, key = point["norm"] * query, point["norm"] * key
    kernel = getattr(kernels, point["kernel"])()
    bound = point["norm"] ** 2 / width**0.5
    draws = [
        getattr(samplers, point["sampler"])(
            kernel.coefficients, num_features=count, num_heads=1, head_dim=width, dot_bound=bound
        )
        for _ in range(cfg.study.settings.num_draws)
    ]
    q, k = query[:NUM_PAIRED], key[:NUM_PAIRED]
    exact = kernel.closed_form(q @ k.T / width**0.5)
    errors = torch.stack([estimate_kernel(features, q, k) - exact for features in draws])
    size = exact.square().mean().sqrt()
    law = predicted_deviation(
        kernel.coefficients, q, k, sampler=point["sampler"], num_features=count, dot_bound=bound
    )
    yield {
        "kernel_error": float(errors.square().mean().sqrt() / size),
        "predicted_error": float(law.square().mean().sqrt() / size),
        "pointwise_error": float(errors.abs().flatten().sort().values[int(0.95 * errors.numel())]),
        "pointwise_bound": concentration_bound(kernel.coefficients, q, k, num_features=count),
        "bias": _bias(errors),
        **_output_error(kernel, draws, query, key, value),
    }


def _bias(errors: Float[Tensor, "draws L S"]) -> float:
    """Return the mean error over draws in its standard errors: 1 is no bias.

    Root mean square over disjoint pairs of tokens, as far as means of draws are normal.
    """
    paired = errors.diagonal(dim1=1, dim2=2)
    standard_error = paired.std(0) / len(paired) ** 0.5
    return float((paired.mean(0) / standard_error).square().mean().sqrt())


def _output_error(kernel: Kernel, draws: list, *inputs: Tensor) -> dict[str, float]:
    query, key, value = (x[None, None] for x in inputs)
    exact = attend_exactly(kernel, query, key, value, key_padding_mask=None)
    outs = [maclaurin_attention(query, key, value, features) for features in draws]
    relative = [error_over_signal(out, exact, value) for out in outs]
    squares = torch.tensor(relative).square()
    signal = (exact - value.mean(2, keepdim=True)).norm() / exact.norm()
    return {"output_error": float(squares.mean().sqrt()), "signal": float(signal)}


def clustered_tokens(
    length: int, head_dim: int, *, num_clusters: int, noise: float
) -> tuple[Float[Tensor, "N E"], Float[Tensor, "N E"], Float[Tensor, "N E"]]:
    """Draw unit queries and keys around shared centres, and values around the centre of their key.

    Args:
        noise: Standard deviation around the centres, which have 1.
    """
    centres, meanings = torch.randn(2, num_clusters, head_dim, dtype=torch.float64)
    noises = noise * torch.randn(3, length, head_dim, dtype=torch.float64)
    of_query, of_key = torch.randint(num_clusters, (2, length))
    query = normalize(centres[of_query] + noises[0], dim=-1)
    key = normalize(centres[of_key] + noises[1], dim=-1)
    return query, key, meanings[of_key] + noises[2]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show every kernel and sampler at the centre."""
    for factor, value in find_centre(frame, FACTORS).items():
        frame = frame[frame[factor] == value]
    frame = frame.drop_duplicates(["kernel", "sampler", "seed"])  # a point of several factors
    code = frame[frame["sampler"] == "code"].groupby("kernel")["kernel_error"].mean()
    rows = []
    for (kernel, sampler), group in frame.groupby(["kernel", "sampler"], sort=False):
        row = {"kernel": kernel, "sampler": sampler}
        for name in ("kernel_error", "predicted_error", "output_error"):
            row[name.replace("_", " ")] = mean_sd(group[name].mean(), group[name].std())
        row["code / kernel error"] = code.get(kernel, float("nan")) / group["kernel_error"].mean()
        row["bias in standard errors"] = mean_sd(group["bias"].mean(), group["bias"].std())
        row["95 % of errors below"] = group["pointwise_error"].mean()
        row["bound of Kar & Karnick"] = group["pointwise_bound"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def plot(frame: pd.DataFrame) -> Figure:
    """Draw the kernel's error by sampler and the output's by kernel, over each factor.

    The last column holds the bound on single entries, and the bias.
    """
    kernel, sampler = frame["kernel"].iloc[0], frame["sampler"].iloc[-1]
    of_kernel, of_sampler = frame[frame["kernel"] == kernel], frame[frame["sampler"] == sampler]
    titles = [f"kernel matrix, {kernel}"] * len(FACTORS) + [f"one entry, {kernel}"]
    titles += [f"output, {sampler}"] * len(FACTORS) + [f"bias, {kernel}"]
    figure, axes = draw_panels(titles, num_columns=len(FACTORS) + 1)
    upper, lower = axes[: len(axes) // 2], axes[len(axes) // 2 :]
    for factor, above, below in zip(FACTORS, upper, lower, strict=False):
        _draw(above, of_kernel, factor, "kernel_error", "sampler", "error / kernel")
        _draw_theory(above, of_kernel, factor, "predicted_error", "--", by="sampler")
        _draw(below, of_sampler, factor, "output_error", "kernel", "error / signal")
    _draw(
        upper[-1], of_kernel, "num_features", "pointwise_error", "sampler", "95 % of errors below"
    )
    _draw_theory(upper[-1], of_kernel, "num_features", "pointwise_bound", ":")
    _draw(lower[-1], of_kernel, "num_features", "bias", "sampler", "bias in standard errors")
    lower[-1].set(yscale="linear", ylim=(0, 2))
    for axis, title in (
        (upper[0], "-- second moment"),
        (upper[-1], "⋯ Kar & Karnick"),
        (lower[0], ""),
    ):
        axis.legend(title=title, frameon=False, fontsize="small", title_fontsize="small")
    return figure


def _draw(axis: Axes, rows: pd.DataFrame, factor: str, value: str, line: str, label: str) -> None:
    draw_lines(axis, rows[rows["varied"] == factor], x=factor, y=value, line=line)
    axis.set(yscale="log", xlabel=FACTORS[factor], ylabel=label)
    axis.set_xscale("log", base=2)


def _draw_theory(
    axis: Axes, rows: pd.DataFrame, factor: str, value: str, style: str, by: str | None = None
) -> None:
    """Draw a prediction where it is finite, for each line in the colour of its measurement."""
    rows = rows[(rows["varied"] == factor) & np.isfinite(rows[value])]
    if by is None:
        mean = rows.groupby(factor)[value].mean()
        axis.plot(mean.index, mean, style, color="grey")
        return
    for line in list(axis.containers):
        assert isinstance(line, ErrorbarContainer)
        mean = rows[rows[by] == line.get_label()].groupby(factor)[value].mean()
        axis.plot(mean.index, mean, style, color=line.lines[0].get_color())
