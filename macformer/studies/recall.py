"""Who finds one token among many: accuracy over pairs, length, and the size of what a row keeps.

Multi-query associative recall, harder in one of two ways at a time: more pairs to tell apart, or
more tokens among which they stand. Averages of the sequence do not answer it: who sees which values
there are, but not which belongs to a key, is right once in ``num_pairs`` questions.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from macformer.plotting import draw_legend, draw_lines, draw_panels
from macformer.runs.allowed import COUNT
from macformer.studies.seeds import find_centre, show_interval, with_intervals
from macformer.studies.toy_cells import train_cell
from macformer.studies.toy_training import count_diverged
from macformer.tables.layout import row_label

FACTORS = {"num_pairs": "pairs", "max_len": "length (tokens)"}
ROW = ["attention", "ppsbn"]
ALLOWED = {"grid.num_steps": COUNT}


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List the centre and the points that differ from it in one factor, for each row."""
    grid: Any = OmegaConf.to_container(cfg.grid, resolve=True)
    centre = grid["centre"]
    along = [centre]
    for factor in FACTORS:
        along += [centre | {factor: value} for value in grid[factor] if value != centre[factor]]
    return [  # seeds outermost: what is done of an interrupted study is whole seeds
        {**row, **point, "seed": seed, "num_steps": grid["num_steps"]}
        for seed, point, row in product(list(cfg.seeds), along, grid["rows"])
    ]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Train one model, and count the numbers that its layers keep of a sequence."""
    torch.manual_seed(point["seed"])
    options = {key: point[key] for key in (*ROW, "seed")}
    options |= {f"task.{factor}": point[factor] for factor in FACTORS}
    outcome, model = train_cell(options, cfg, num_steps=point["num_steps"])
    encoder: Any = model.encoder
    floor = 1 / point["num_pairs"]
    yield {**vars(outcome), "floor": floor, "state_size": encoder.state_size(point["max_len"])}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show each row's accuracy with its interval at every point, and its state at the centre."""
    shown = with_intervals(frame, [*ROW, *FACTORS])
    centre = find_centre(frame, FACTORS)
    rows, names = [], {}  # of columns, in the order of the points
    for place in sorted(shown.to_dict("records"), key=_place):
        names[_place(place)] = f"{place['num_pairs']} pairs in {place['max_len']}, %"
    for (attention, ppsbn), group in shown.groupby(ROW, sort=False):
        of_row = frame[(frame["attention"] == attention) & (frame["ppsbn"] == ppsbn)]
        at_centre = of_row
        for factor, value in centre.items():
            at_centre = at_centre[at_centre[factor] == value]
        row = {"attention": attention, "ppSBN": ppsbn, "n": group["count"].min()}
        row["numbers kept"] = at_centre["state_size"].max()
        for place in group.to_dict("records"):
            row[names[_place(place)]] = show_interval(place)
        rows.append({**row, "diverged": count_diverged(of_row)})
    columns = ["attention", "ppSBN", "n", "numbers kept", *names.values(), "diverged"]
    return pd.DataFrame(rows, columns=columns)


def _place(row: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[factor] for factor in FACTORS)


def plot(frame: pd.DataFrame) -> Figure:
    """Draw accuracy over pairs, over length, and over the size of the state."""
    frame = frame.assign(row=[row_label(*row) for row in frame[ROW].itertuples(index=False)])
    centre, names = find_centre(frame, FACTORS), list(frame["row"].unique())
    shown = with_intervals(frame, ["row", *FACTORS])
    varied = [factor for factor in FACTORS if frame[factor].nunique() > 1]
    titles = [*(FACTORS[factor] for factor in varied), "what is kept"]
    figure, axes = draw_panels(titles, legend=True)
    for axis, factor in zip(axes, varied, strict=False):
        (other,) = set(FACTORS) - {factor}
        along = shown[shown[other] == centre[other]]
        draw_lines(axis, along, x=factor, y="accuracy", line="row", names=names, bars="half")
        floor = frame.groupby(factor)["floor"].max() if factor == "num_pairs" else None
        if floor is not None:
            axis.plot(floor.index, 100 * floor, color="0.6", linestyle=":", label="1 / pairs")
        axis.set(xlabel=FACTORS[factor], ylabel="answers right (%)", ylim=(0, 105))
        axis.set_xscale("log", base=2)
        axis.set_xticks(values := sorted(frame[factor].unique()), [f"{n:,}" for n in values])
        axis.minorticks_off()
    at_length = frame[frame["max_len"] == centre["max_len"]]
    hardest = at_length[at_length["num_pairs"] == at_length["num_pairs"].max()]
    kept = with_intervals(hardest, ["row", "state_size"])
    draw_lines(axes[-1], kept, x="state_size", y="accuracy", line="row", names=names, bars="half")
    label = f"numbers kept of a sequence, {hardest['num_pairs'].max()} pairs"
    axes[-1].set(xlabel=label, ylabel="answers right (%)", ylim=(0, 105))
    axes[-1].set_xscale("symlog")
    draw_legend(figure, axes)
    return figure
