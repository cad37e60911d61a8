"""Draw time and memory of attention by itself over the length, from the benchmark's table."""

from pathlib import Path

import pandas as pd

from macformer.plotting import draw_over_length
from macformer.tables.layout import Plot
from macformer.tables.panels import save_plot
from macformer.tables.runs import TableError

FILE_NAME = "bench.csv"  # found without being named in the folder of a sweep
COLUMNS = ["attention", "mode", "length", "ms", "peak MiB"]
NUMBERS = ["length", "ms", "peak MiB"]
MEASURES = [
    ("ms", "Time against length", "length_time", "time (ms)"),
    ("peak MiB", "Memory against length", "length_memory", "peak memory (MiB)"),
]


def read_benchmark(file: Path) -> pd.DataFrame:
    """Read a table of `macformer-bench`; what failed there has blanks.

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
    for column in NUMBERS:
        if not pd.api.types.is_numeric_dtype(benchmark[column]):
            raise TableError(f"{file} is no benchmark, not all of its column {column} are numbers")
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
            figure = draw_over_length(shown, {column: ylabel})
            plots.append(save_plot(figure, title, out / stem, caption=caption))
    return plots
