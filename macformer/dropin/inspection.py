"""What each row would make of the layers of a model, measured before anything is trained."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor, nn

from macformer.dropin.observe import Call, answered
from macformer.dropin.rows import Factory
from macformer.dropin.savings import upper_limit
from macformer.dropin.transfer import compare_with_softmax
from macformer.measuring import now
from macformer.plotting import draw_legend, draw_lines, draw_panels
from macformer.runs.build import first_validation_batches
from macformer.training.objectives import Batch, predict

_SOFTMAX = "softmax"


def load_batches(cfg: DictConfig, *, num_batches: int, batch_size: int) -> list[Batch]:
    """Take the first batches of a task's validation data, cut to their longest sequences.

    Raises:
        ValueError: If there is but one, which warms up.
    """
    batches, data = first_validation_batches(cfg, num_batches=num_batches, batch_size=batch_size)
    if len(batches) < 2:
        rows = data.num_examples["validation"]
        raise ValueError(
            f"batch_size is {batch_size}, and {cfg.task.name} has {rows} rows of validation: less "
            "than two batches, of which the first warms up"
        )
    return [_trimmed(batch) for batch in batches]


def _trimmed(batch: Batch) -> Batch:
    if "key_padding_mask" not in batch:
        return batch
    padding = batch["key_padding_mask"]
    longest = int((~padding).sum(-1).max())
    names = ("inputs", "key_padding_mask")
    return {**batch, **{name: batch[name].narrow(padding.ndim - 1, 0, longest) for name in names}}


@torch.no_grad()
def inspect_layers(
    model: nn.Module,
    batches: Sequence[Batch],
    rows: Mapping[str, Factory],
    *,
    learnt: Mapping[str, Mapping[str, nn.Module]],
    max_seq_len: int,
) -> tuple[pd.DataFrame, float]:
    """Ask each row about what softmax is asked in each layer of a model.

    Args:
        model: One whose attention was replaced by softmax itself.
        rows: The factories, by the names that they get in the table.
        learnt: Rows with the attention of each layer, by the layers' names.

    Returns:
        A line for each row, softmax among them, layer and batch but the first: ``row``, ``layer``,
        ``error`` (squared, over the signal) and ``seconds``; and the median seconds of a pass over
        a batch, with softmax. Layers that share one attention, as ALBERT's, are one: with the mean
        of their errors, and all their seconds.
    """
    lines: list[pd.DataFrame] = []
    built = {(row, layer): x for row, layers in learnt.items() for layer, x in layers.items()}
    names = [*rows, *learnt]
    passes: list[float] = []
    for place, batch in enumerate(batches):
        device = batch["inputs"].device
        start = now(device)
        predict(model.eval(), batch)
        passes += [now(device) - start] if place > 0 else []
        found: list[dict[str, Any]] = []
        with answered(_asker(names, rows, built, found, max_seq_len=max_seq_len)):
            predict(model, batch)
        calls = pd.DataFrame(found).groupby(["row", "layer"], sort=False, as_index=False)
        lines += [calls.agg({"error": "mean", "seconds": "sum"})] if place > 0 else []
    return pd.concat(lines, ignore_index=True), median(passes)


def _asker(
    names: Sequence[str],
    rows: Mapping[str, Factory],
    built: dict[tuple[str, str], nn.Module],
    found: list[dict[str, Any]],
    *,
    max_seq_len: int,
) -> Callable[[Call], Tensor]:
    """Return what asks every row, keeps what it finds, and answers as the model does."""

    def answer(call: Call) -> Tensor:
        _, num_heads, _, head_dim = call.query.shape
        sizes = {"num_heads": num_heads, "head_dim": head_dim, "max_seq_len": max_seq_len}
        for row in names:
            key = (row, call.name)
            if key not in built and row in rows:
                built[key] = rows[row](**sizes).to(call.query.device)
            if key in built:  # a model may have learnt another attention in some layers alone
                found.append(_line(row, call._replace(attention=built[key].eval())))
        found.append(_line(_SOFTMAX, call))
        return call.by(call.attention)

    return answer


def _line(row: str, call: Call) -> dict[str, Any]:
    start = now(call.query.device)
    call.by(call.attention)
    seconds = now(call.query.device) - start
    error, _ = compare_with_softmax(call)
    return {"row": row, "layer": call.name, "error": float(error), "seconds": seconds}


def summarise(
    lines: pd.DataFrame, whole: float, *, layers: Sequence[str], error: float
) -> pd.DataFrame:
    """Make one line of each row: its errors, its time, and which layers it could replace.

    How many times as fast a model gets follows from its own time with softmax and from that of
    each attention, layer by layer. Times are medians over batches: a pause in one says nothing.

    Args:
        layers: Names of all attention modules of the model, in its order, those that are kept
            included: a layer's number is its place among them, as in ``model.layers``.
    """
    grouped = lines.groupby(["row", "layer"], sort=False)
    errors = grouped["error"].mean().pow(0.5).unstack(sort=False)
    seconds = grouped["seconds"].median().unstack(sort=False)
    softmax = seconds.loc[_SOFTMAX]
    table = []
    for row in errors.index:
        if row == _SOFTMAX:
            continue
        saved = softmax - seconds.loc[row]
        within = errors.loc[row] <= error
        chosen = [str(layers.index(name)) for name in errors.columns[within]]
        table.append(
            {
                "row": row,
                **{f"layer {layers.index(name)}": x for name, x in errors.loc[row].items()},
                "time / softmax": seconds.loc[row].sum() / softmax[saved.notna()].sum(),
                "all: times as fast": whole / (whole - saved.sum()),
                "replace": ", ".join(chosen) or "none",
                "these: times as fast": whole / (whole - saved[within].sum()),
            }
        )
    return pd.DataFrame(table)


def limit_of(lines: pd.DataFrame, whole: float) -> tuple[float, float]:
    """Return softmax's share of a model's time, and the speed-up by an attention without any."""
    softmax = lines[lines["row"] == _SOFTMAX]
    share = float(softmax.groupby("layer")["seconds"].median().sum()) / whole
    return share, upper_limit(share)


def draw(lines: pd.DataFrame, *, layers: Sequence[str]) -> Figure:
    """Draw the error of each row over the layers; at 1 the mean of the values is as good."""
    frame = lines[lines["row"] != _SOFTMAX].assign(
        layer=lambda x: x["layer"].map(layers.index),
        error=lambda x: x["error"].pow(0.5),
        row=lambda x: x["row"].str.removeprefix("attention=").str.replace(" ", "\n"),  # legible
    )
    figure, (axis,) = draw_panels(["Error over signal"], legend=True)
    draw_lines(axis, frame, x="layer", y="error", line="row")
    axis.axhline(1, color="grey", linewidth=0.8)
    axis.set_xticks(sorted(set(frame["layer"])))
    axis.set(ylabel="error / signal", ylim=(0, None))
    draw_legend(figure, [axis])
    return figure
