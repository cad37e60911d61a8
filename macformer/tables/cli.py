"""Write tables, plots and one HTML page of the runs below some folders."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path

import pandas as pd
from rich.console import Console

from macformer.record import printable
from macformer.tables.build import build_tables
from macformer.tables.captions import run_notes
from macformer.tables.choices import choice_note, choices_table
from macformer.tables.comparable import check_comparable
from macformer.tables.comparison import add_comparison, check_reference
from macformer.tables.decision import MEANINGS, Rates, decide, decision_tables, read_rates
from macformer.tables.formats import print_tables, to_latex, to_markdown
from macformer.tables.layout import Table
from macformer.tables.lengths import FILE_NAME, draw_lengths
from macformer.tables.page import write_page
from macformer.tables.plots import draw_plots
from macformer.tables.published import read_published
from macformer.tables.runs import TableError, read_runs
from macformer.tables.settings import given_up, name_runs
from macformer.tables.summary import REFERENCE, summarise
from macformer.watch import watch
from macformer.whole_file import replaced

FILE_WIDTH = 120  # of what is printed and not to a terminal


def make_tables(
    folders: Sequence[Path],
    *,
    out: Path | None = None,
    allow_mixed: bool = False,
    best_of: Sequence[str] | None = None,
    against: str | None = None,
    rates: Rates | None = None,
    published: Path | None = None,
    bench: Path | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Write the tables, the plots and the page of all runs below the folders.

    Args:
        out: Where the files go; the folder itself, or the one that all folders share.
        allow_mixed: Lets one table hold several recipes or devices, in rows of their own.
        best_of: Options of which each row shows the setting that was best in validation; if None,
            those that the runs were tuned over, as their option ``best_of`` says.
        against: The attention that rows are compared with example by example; softmax if None.
        rates: Prices and bounds, at which a sheet says of each row whether it pays.
        published: The reference file, if not the package's own.
        bench: A table of the attention benchmark, if not bench.csv among the files written; its
            plots join the page.
        console: Where the main tables are printed, if anywhere.

    Returns:
        The files written.

    Raises:
        TableError: If there is no run, or the runs cannot stand in one table.
    """
    read = read_runs(folders)
    runs, chosen = name_runs(read, best_of=best_of)
    check_comparable(runs, allow_mixed=allow_mixed)
    summary = summarise(runs)
    beside = against or REFERENCE
    if against is not None:
        check_reference(runs, against=against)
    summary = add_comparison(summary, runs, against=beside)
    quoted = read_published(published)
    others_tried = given_up(read, runs)
    notes = [*([] if chosen.empty else [choice_note(chosen)]), *run_notes(others_tried)]
    first, others = build_tables(runs, summary, against=beside, published=quoted, notes=notes)
    if not chosen.empty:
        first.append(choices_table(chosen))
    sheet = {}
    if rates is not None:
        lines = decide(summary, runs, read=read, chosen=chosen, rates=rates, against=beside)
        sheet = {"decision.csv": lines}
        first += decision_tables(lines, rates, against=beside)
    out = out or Path(os.path.commonpath([folder.resolve() for folder in folders]))
    out.mkdir(parents=True, exist_ok=True)
    listed = pd.concat([runs.assign(chosen=True), others_tried.assign(chosen=False)])
    frames = {"table.csv": summary, "runs.csv": listed.drop(columns="config"), **sheet}
    files = _write_tables([*first, *others], frames, out=out)
    drawn = draw_plots(runs, summary, out=out)
    if bench is None and (out / FILE_NAME).is_file():
        bench = out / FILE_NAME
    if bench is not None:
        drawn += draw_lengths(bench, out=out)
    page = out / "index.html"
    parts = [*first, *drawn, *others]
    write_page(page, title=f"Sweep {out.resolve().name}", runs=listed, parts=parts, beside=files)
    if console is not None:
        print_tables(first, console=console)
    return [*files, *(file for plot in drawn for file in (plot.png, plot.svg)), page]


def _write_tables(
    tables: Sequence[Table], frames: Mapping[str, pd.DataFrame], *, out: Path
) -> list[Path]:
    """Write tables for reading, and frames with every digit; return the files."""
    files = []
    for name, write in (("table.md", to_markdown), ("table.tex", to_latex)):
        files.append(out / name)
        with replaced(files[-1]) as file:
            file.write("\n".join(map(write, tables)).encode())
    for name, frame in frames.items():
        files.append(out / name)
        with replaced(files[-1]) as file:
            frame.to_csv(file, index=False)
    return files


def table_console() -> Console:
    """Open a console for the tables, on a terminal or not, and of any encoding."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake of the user gives one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="macformer-tables", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders that hold runs")
    parser.add_argument("--out", type=Path, help="where the files go (default: the folder itself)")
    parser.add_argument(
        "--allow-mixed",
        action="store_true",
        help="let one table hold several recipes or devices",
    )
    parser.add_argument(
        "--best-of",
        type=lambda text: [name for name in text.split(",") if name],
        metavar="OPTION,...",
        help="show each row at the setting of these options that was best in validation (default: "
        "what the runs were tuned over; '': every setting is a row)",
    )
    parser.add_argument(
        "--against", metavar="ROW", help="compare rows with this one (default: softmax)"
    )
    parser.add_argument(
        "--decide",
        nargs="?",
        const="",
        metavar="RATE=NUMBER,...",
        help="say of each row whether it pays, at these rates or those of a .yaml file: "
        + "; ".join(f"{name}: {what.replace('%', '%%')}" for name, what in MEANINGS.items()),
    )
    parser.add_argument("--published", type=Path, help="published results (default: the package's)")
    parser.add_argument(
        "--bench",
        type=Path,
        help="a table of the attention benchmark (default: bench.csv in there)",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show instead how a sweep that runs stands, here and in watch.html",
    )
    options = vars(parser.parse_args(arguments))
    console = table_console()
    if options.pop("watch"):
        return _watch(options["folders"], out=options["out"])
    decide_by = options.pop("decide")
    try:
        rates = None if decide_by is None else read_rates(decide_by)
        files = make_tables(options.pop("folders"), **options, rates=rates, console=console)
    except (TableError, OSError) as error:
        print(f"macformer-tables: {printable(str(error))}", file=sys.stderr)
        return 2
    for file in files:
        console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _watch(folders: Sequence[Path], *, out: Path | None) -> int:
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        print(f"macformer-tables: no such folder: {', '.join(missing)}", file=sys.stderr)
        return 2
    watch(folders, out=out)
    return 0
