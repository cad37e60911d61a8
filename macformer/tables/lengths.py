"""Draw time and memory of attention by itself over the length, from the benchmark's table."""

from itertools import cycle, product
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from macformer.tables.layout import Plot
from macformer.tables.panels import COLOURS, LEGEND_WIDTH, MARKERS, PANEL_SIZE, save
from macformer.tables.runs import TableError

FILE_NAME = "bench.csv"  # found without being named in the folder of a sweep
COLUMNS = ["attention", "mode", "length", "ms", "peak MiB"]
MEASURES = [
    ("ms", "Time against length", "length_time", "time (ms)"),
    ("peak MiB", "Memory against length", "length_memory", "peak memory (MiB)"),
]


def read_benchmark(file: Path) -> pd.DataFrame:
    """Read a table of `scripts/bench_attention.py`; what failed there has blanks.

    Raises:
        TableError: If it cannot be read, or is no such table.
    """
    try:
        benchmark = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise TableError(f"cannot read {file}: {error}") from error
    missing = [column for column in COLUMNS if column not in benchmark]
    if missing:
        raise TableError(f"{file} is no benchmark, it lacks the columns {', '.join(missing)}")
    return benchmark


def read_caption(file: Path) -> str:
    """Read where a benchmark was measured, which the Markdown beside its table begins with."""
    report = file.with_suffix(".md")
    return report.read_text(encoding="utf-8").partition("\n")[0] if report.is_file() else ""


def draw_lengths(file: Path, *, out: Path) -> list[Plot]:
    """Save a plot of time and one of memory, where there is anything to draw.

    Raises:
        TableError: If the file is no table of the benchmark.
    """
    benchmark, caption = read_benchmark(file), read_caption(file)
    plots = []
    for column, title, stem, ylabel in MEASURES:
        shown = benchmark[benchmark[column] > 0]
        if not shown.empty:
            figure = length_chart(shown, column, ylabel=ylabel)
            plots.append(save(figure, title, out / stem, caption=caption))
    return plots


def length_chart(benchmark: pd.DataFrame, column: str, *, ylabel: str) -> Figure:
    """Draw a column over the length on logarithmic axes, a panel for each mode.

    There a power of the length is a straight line, twice as steep for softmax as for linear
    attention.
    """
    modes = list(benchmark["mode"].unique())
    names = list(benchmark["attention"].unique())
    looks = dict(zip(names, cycle(product(MARKERS, COLOURS)), strict=False))
    width, height = PANEL_SIZE
    figure = Figure(figsize=(width * len(modes) + LEGEND_WIDTH, height), layout="constrained")
    panels = figure.subplots(1, len(modes), squeeze=False, sharey=True)[0]
    for axis, mode in zip(panels, modes, strict=True):
        _draw_panel(axis, benchmark[benchmark["mode"] == mode], column, looks)
        axis.set(xlabel="length (tokens)", ylabel=ylabel)
        axis.set_title(mode.replace("_", " + "), loc="left", fontweight="bold")
    handles = {line.get_label(): line for axis in panels for line in axis.lines}
    figure.legend(handles=[*handles.values()], loc="outside right upper", frameon=False)
    return figure


def _draw_panel(
    axis: Axes, rows: pd.DataFrame, column: str, looks: dict[str, tuple[str, str]]
) -> None:
    for name, line in rows.sort_values("length", kind="stable").groupby("attention", sort=False):
        marker, colour = looks[str(name)]
        axis.plot(
            line["length"], line[column], color=colour, marker=marker, markersize=4, label=name
        )
    lengths = sorted(rows["length"].unique())
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axis.spines[["top", "right"]].set_visible(False)
