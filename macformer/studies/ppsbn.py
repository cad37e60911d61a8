"""ppSBN's effect on training: accuracy, divergence and gradients, over batch size and input scale.

Each attention trains without ppSBN, with it, and with its other reading, on two small tasks:
short ListOps expressions, classified from the mean over tokens, and the reversal of a sequence,
token by token. One factor varies at a time around the centre that the configuration states.

The input scale is the initial gain of the layer normalisation in front of each attention. It
multiplies queries, keys and values alike, as grown weights would, and remains a parameter. A run
has diverged if its loss or a gradient is not finite, or if the final test loss exceeds the
entropy of the labels by a tenth: then knowing nothing had been better.
"""

from collections.abc import Iterable, Iterator
from itertools import islice, product
from math import inf
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import nn

from macformer.models import EncoderLayer
from macformer.plotting import draw_legend, draw_lines, draw_panels
from macformer.runs.allowed import COUNT, POSITIVE, TEXT, list_of, one_of
from macformer.runs.build import build_data, build_model
from macformer.studies.compose import compose_cell
from macformer.studies.reverse import TEST_SEED, reverse_batches
from macformer.studies.seeds import find_centre, mean_sd
from macformer.studies.tagger import build_tagger
from macformer.studies.toy_training import train
from macformer.training.objectives import Batch

FACTORS = {"batch_size": "batch size", "input_scale": "input scale"}
READINGS = {
    "without": "without ppSBN",
    "with": "with ppSBN",
    "with_batch": "with ppSBN by batch",
}
GROUP = ["task", "attention", "ppsbn"]
ALLOWED = {
    "grid.task": list_of(one_of("listops", "reverse")),
    "grid.attention": list_of(TEXT),
    "grid.batch_size": list_of(COUNT, least=0),
    "grid.input_scale": list_of(POSITIVE, least=0),
    "grid.num_steps": COUNT,
}

Training = tuple[nn.Module, Iterator[Batch], list[Batch]]  # the model, its data and its test


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List the centre and the points that differ from it in one factor, for each combination."""
    grid: Any = OmegaConf.to_container(cfg.grid, resolve=True)
    centre = {factor: cfg.study.settings.centre[factor] for factor in FACTORS}
    along = [centre]
    for factor in FACTORS:
        along += [centre | {factor: value} for value in grid[factor] if value != centre[factor]]
    rows = [(attention, ppsbn) for attention in grid["attention"] for ppsbn in READINGS]
    rows += [(row["attention"], row["ppsbn"]) for row in grid["further"]]
    return [  # seeds outermost: what is done of an interrupted study is whole seeds
        {"task": task, "attention": attention, "ppsbn": ppsbn, **point, "seed": seed}
        | {"num_steps": grid["num_steps"]}
        for seed, task, (attention, ppsbn), point in product(
            list(cfg.seeds), grid["task"], rows, along
        )
    ]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Train one model."""
    torch.manual_seed(point["seed"])
    settings = cfg.study.settings
    build = _listops if point["task"] == "listops" else _reverse
    model, batches, test = build(point, cfg)
    for layer in model.modules():
        if isinstance(layer, EncoderLayer):
            nn.init.constant_(layer.mixer_norm.weight, point["input_scale"])
    outcome = train(
        model,
        batches,
        test,
        num_steps=point["num_steps"],
        warmup_steps=point["num_steps"] // 10,
        learning_rate=settings.learning_rate,
        device=cfg.device,
    )
    yield {**vars(outcome), "diverged": outcome.diverged}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show accuracy at the centre, and the worst accuracy, divergence and gradients off it."""
    rows: list[dict[str, Any]] = []
    centre = find_centre(frame, FACTORS)
    for (task, attention, ppsbn), group in frame.groupby(GROUP, sort=False):
        row = {"task": task, "attention": attention, "ppSBN": ppsbn}
        at_centre = _along(group, None, centre).assign(accuracy=lambda rows: 100 * rows["accuracy"])
        accuracy = at_centre["accuracy"]
        row["n"] = len(at_centre)
        row["accuracy % at the centre"] = mean_sd(accuracy.mean(), accuracy.std())
        for factor, name in FACTORS.items():
            means = _along(group, factor, centre).groupby(factor)["accuracy"].mean()
            row[f"lowest over {name}"] = f"{100 * means.min():.3g} (at {means.idxmin():g})"
        row["diverged runs"] = f"{int(group['diverged'].sum())} of {len(group)}"
        row["gradient norm at the centre"] = at_centre["gradient_norm"].median()
        row["largest gradient norm"] = group["largest_gradient_norm"].fillna(inf).max()
        rows.append(row)
    tasks = list(frame["task"].unique())
    return pd.DataFrame([row for task in tasks for row in rows if row["task"] == task])


def plot(frame: pd.DataFrame) -> Figure:
    """Draw accuracy over each factor, a panel for each task and reading."""
    tasks, centre = list(frame["task"].unique()), find_centre(frame, FACTORS)
    attentions = list(frame["attention"].unique())
    readings = [ppsbn for ppsbn in READINGS if ppsbn in set(frame["ppsbn"])]
    panels = list(product(tasks, FACTORS, readings))
    titles = [f"{task}, {READINGS[ppsbn]}" for task, _, ppsbn in panels]
    figure, axes = draw_panels(titles, num_columns=len(readings))
    for axis, (task, factor, ppsbn) in zip(axes, panels, strict=True):
        shown = frame[(frame["task"] == task) & (frame["ppsbn"] == ppsbn)]
        shown = _along(shown, factor, centre).assign(accuracy=lambda rows: 100 * rows["accuracy"])
        draw_lines(axis, shown, x=factor, y="accuracy", line="attention", names=attentions)
        axis.set_xscale("log", base=2 if factor == "batch_size" else 10)
        highest = 100 * frame.loc[frame["task"] == task, "accuracy"].max()
        axis.set(xlabel=FACTORS[factor], ylabel="test accuracy (%)", ylim=(0, 1.05 * highest))
    draw_legend(figure, axes)
    return figure


def _reverse(point: dict[str, Any], cfg: DictConfig) -> Training:
    task = cfg.study.settings.reverse
    composed = _compose(point, cfg, max_seq_len=task.seq_len)
    model = build_tagger(composed, num_symbols=task.num_symbols)
    test = list(islice(reverse_batches(**task, batch_size=256, seed=TEST_SEED), 4))
    batches = reverse_batches(**task, batch_size=point["batch_size"], seed=point["seed"])
    return model, batches, test


def _listops(point: dict[str, Any], cfg: DictConfig) -> Training:
    composed = _compose(point, cfg, **cfg.study.settings.listops)
    data: Any = build_data(composed)
    data.prepare_data()
    data.setup("fit")
    return build_model(composed), iter(data.train_dataloader()), list(data.test_dataloader())


def _compose(point: dict[str, Any], cfg: DictConfig, **options: Any) -> DictConfig:
    settings, name = cfg.study.settings, point["attention"]
    attention = settings.variants.get(name, {"attention": name})
    chosen = {key: point[key] for key in ("ppsbn", "batch_size", "seed")} | {**attention}
    fixed = {**settings.options, "paths.data_dir": cfg.paths.data_dir}
    return compose_cell(cfg, {**fixed, **options, **chosen})


def _along(frame: pd.DataFrame, free: str | None, centre: dict[str, Any]) -> pd.DataFrame:
    """Select the rows in which all factors but the free one stand at the centre."""
    for factor in FACTORS:
        if factor != free:
            frame = frame[frame[factor] == centre[factor]]
    return frame
