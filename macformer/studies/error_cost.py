"""What the error of random features costs in accuracy, on the reversal of a sequence.

Models train with few and many features, of the authors' law and of least variance, under ppSBN
alone and with a learnable scale, between two ends: uniform attention and the exact kernel. A
trained model is scored again with features that it has not seen, and with the exact kernel. Where
these accuracies fall, it has learnt to use its own features, and not the kernel that they estimate.
"""

from collections.abc import Iterable
from itertools import islice, product
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import nn

from macformer.features.calls import core_attentions, record_attention, transplant
from macformer.features.error import error_over_signal
from macformer.plotting import COLOURS, MARKERS, draw_panels, place_legend
from macformer.studies.compose import compose_cell
from macformer.studies.reverse import TEST_SEED, reverse_batches
from macformer.studies.runner import StudyError
from macformer.studies.seeds import mean_sd
from macformer.studies.tagger import build_tagger
from macformer.studies.toy_training import evaluate, train
from macformer.training.objectives import to_device

SCORES = {
    "accuracy": "its own features",
    "accuracy_redrawn": "other features",
    "accuracy_exact": "the exact kernel",
}
MEASURED = ("error", *SCORES)  # of points with features; the ends, which come first, have none
ESTIMATE = ("num_features", "per_head", "sampler", "assumed_dot")  # what the kernel itself has not
ROW = ["attention", "ppsbn", "sampler", "num_features"]


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List the ends, then each attention with each number of features of each sampler."""
    none = {"sampler": "", "num_features": 0}
    rows = [
        {"attention": name, "ppsbn": ppsbn, **none}
        for name, ppsbn in cfg.study.settings.ends.items()
    ]
    rows += [
        {"attention": name, "ppsbn": "with", "sampler": sampler, "num_features": count}
        for name, sampler, count in product(
            cfg.grid.attention, cfg.grid.sampler, cfg.grid.num_features
        )
    ]
    budget = {"num_steps": cfg.grid.num_steps}
    return [{**row, **budget, "seed": seed} for row, seed in product(rows, cfg.seeds)]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Train one model, and score it with its own, with other and without features."""
    settings, seed = cfg.study.settings, point["seed"]
    task = settings.reverse
    test = list(islice(reverse_batches(**task, batch_size=256, seed=TEST_SEED), 4))
    test = [to_device(batch, cfg.device) for batch in test]
    model = _build(point, cfg, seed=seed)
    outcome = train(
        model,
        reverse_batches(**task, batch_size=settings.batch_size, seed=seed),
        test,
        num_steps=point["num_steps"],
        warmup_steps=point["num_steps"] // 10,
        learning_rate=settings.learning_rate,
        device=cfg.device,
    )
    row = {"accuracy": outcome.accuracy, "loss": outcome.loss, "diverged": outcome.diverged}
    row["kernel"] = _describe_kernel(model)
    if point["sampler"]:
        row |= _score_swapped(model, point, cfg, test)
    yield row


def _score_swapped(
    model: nn.Module, point: dict[str, Any], cfg: DictConfig, test: list
) -> dict[str, float]:
    """Measure the error on the trained model's queries and keys, and its accuracy without it."""
    other = transplant(model, _build(point, cfg, seed=point["seed"] + TEST_SEED))
    exact = transplant(model, _build(point, cfg, seed=point["seed"], exact=True))
    own = record_attention(model, test[0])[0]
    target = record_attention(exact, test[0])[0].out  # the first layer, whose inputs are the same
    return {
        "error": error_over_signal(own.out, target, own.value),
        "accuracy_redrawn": float(evaluate(other, test)[1].mean()),
        "accuracy_exact": float(evaluate(exact, test)[1].mean()),
    }


def _describe_kernel(model: nn.Module) -> str | None:
    """Name what a model's attention computes or estimates, None where that is no kernel."""
    attention = core_attentions(model)[0]
    kernel = getattr(attention, "kernel", None)
    if kernel is None:
        return None
    return kernel.name if getattr(attention, "scale", None) is None else f"{kernel.name}, scaled"


def _build(point: dict[str, Any], cfg: DictConfig, *, seed: int, exact: bool = False) -> nn.Module:
    """Build a point's model; ``exact`` puts the kernel itself in the place of its estimate."""
    torch.manual_seed(seed)
    settings = cfg.study.settings
    options = {**settings.options, "attention": point["attention"], "ppsbn": point["ppsbn"]}
    options["max_seq_len"] = settings.reverse.seq_len
    changes = []
    if exact:
        options["attention._target_"] = "macformer.attention.KernelizedAttention"
        changes = [f"~attention.{name}" for name in ESTIMATE]
    elif point["sampler"]:
        options["attention/sampler"] = point["sampler"]
        options["attention.num_features"] = point["num_features"]
    composed = compose_cell(cfg, options, *changes)
    return build_tagger(composed, num_symbols=settings.reverse.num_symbols).to(cfg.device)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show error and accuracies of each row, over seeds."""
    frame = frame.reindex(columns=list(dict.fromkeys([*frame, *MEASURED])))
    rows = []
    for (attention, ppsbn, sampler, count), group in frame.fillna({"sampler": ""}).groupby(
        ROW, sort=False
    ):
        row = {"attention": attention, "ppSBN": ppsbn, "sampler": sampler, "features": count or ""}
        row["error / signal"] = mean_sd(group["error"].mean(), group["error"].std(), digits=2)
        for score, name in SCORES.items():
            accuracy = 100 * group[score]
            row[f"accuracy % with {name}"] = mean_sd(accuracy.mean(), accuracy.std())
        row["diverged"] = f"{int(group['diverged'].sum())} of {len(group)}"
        rows.append(row)
    return pd.DataFrame(rows)


def plot(frame: pd.DataFrame) -> Figure:
    """Draw accuracy over error, a panel for each attention and a colour for each score.

    Raises:
        StudyError: If the study was stopped before the first point with features.
    """
    frame = frame.reindex(columns=list(dict.fromkeys([*frame, *MEASURED])))
    attentions = list(frame.dropna(subset=["error"])["attention"].unique())
    if not attentions:
        raise StudyError("no point with features has been measured yet; there is nothing to draw")
    figure, axes = draw_panels(attentions, num_columns=2)
    for axis, attention in zip(axes, attentions, strict=True):
        rows = frame[frame["attention"] == attention]
        for colour, (score, name) in zip(COLOURS[2:], SCORES.items(), strict=False):
            for marker, (sampler, group) in zip(MARKERS, rows.groupby("sampler"), strict=False):
                label, accuracy = f"{name}, {sampler}", 100 * group[score]
                axis.plot(group["error"], accuracy, marker, color=colour, label=label, alpha=0.7)
        same_kernel = frame["kernel"] == rows["kernel"].iloc[0]
        ends = {
            "uniform": frame["attention"] == "uniform",
            "exact kernel": same_kernel & (frame["num_features"] == 0),
        }
        for style, (label, end) in zip((":", "--"), ends.items(), strict=True):
            accuracy = 100 * frame.loc[end, "accuracy"].mean()
            axis.axhline(accuracy, color="grey", linestyle=style, label=f"trained with {label}")
        axis.set_xscale("log", base=2)
        axis.set(xlabel="error / signal", ylabel="test accuracy (%)", ylim=(0, 103))
    place_legend(figure, *axes[0].get_legend_handles_labels())
    return figure
