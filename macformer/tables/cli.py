"""The command `macformer-tables`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from macformer.tables import formats, plots
from macformer.tables.build import build_tables
from macformer.tables.published import read_published
from macformer.tables.runs import TableError, read_runs
from macformer.tables.summary import summarise


def make_tables(
    folders: Sequence[Path],
    *,
    out: Path | None = None,
    allow_mixed: bool = False,
    published: Path | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Write the tables and plots of all runs below the folders.

    Args:
        out: Where the files go; the folder itself, or the one that all folders share.
        allow_mixed: Lets one table hold several recipes or devices, in rows of their own.
        published: The reference file, if not the package's own.
        console: Where the tables are printed, if anywhere.

    Returns:
        The files written.

    Raises:
        TableError: If there is no run, or the runs cannot stand in one table.
    """
    runs = read_runs(folders)
    summary = summarise(runs, allow_mixed=allow_mixed)
    tables = build_tables(runs, summary, published=read_published(published))
    out = out or Path(os.path.commonpath([folder.resolve() for folder in folders]))
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "table.md", out / "table.tex", out / "table.csv", out / "runs.csv"]
    files[0].write_text("\n".join(map(formats.to_markdown, tables)), encoding="utf-8")
    files[1].write_text("\n".join(map(formats.to_latex, tables)), encoding="utf-8")
    summary.to_csv(files[2], index=False)
    runs.drop(columns="config").to_csv(files[3], index=False)
    if summary["num_finished"].any():
        files += plots.save(plots.bubble_chart(summary), out / "bubble")
    if console is not None:
        formats.print_tables(tables[:1], console=console)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake of the user gives one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="macformer-tables", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders that hold finished runs")
    parser.add_argument("--out", type=Path, help="where the files go (default: the folder itself)")
    parser.add_argument(
        "--allow-mixed", action="store_true", help="let one table hold several recipes or devices"
    )
    parser.add_argument("--published", type=Path, help="reference file (default: the package's)")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        files = make_tables(
            options.folders,
            out=options.out,
            allow_mixed=options.allow_mixed,
            published=options.published,
            console=console,
        )
    except TableError as error:
        print(f"macformer-tables: {error}", file=sys.stderr)
        return 2
    for file in files:
        console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)
    return 0
