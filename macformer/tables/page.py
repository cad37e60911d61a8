"""One HTML page for a sweep, in one file: tables to sort and filter, plots, and links to the runs.

Without its script the page is whole; on paper it has neither controls nor colours of the night.
"""

import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from macformer.tables import captions
from macformer.tables.formats import heading_spans, num_numbers
from macformer.tables.layout import Entry, Plot, Row, Table
from macformer.tables.page_figures import inline_svg
from macformer.tables.page_runs import TEXT, runs_html
from macformer.whole_file import replaced

CONTROLS = """<form id="controls" hidden>
<input type="search" name="filter" placeholder="Filter rows" aria-label="Filter rows">
<details><summary>Rows</summary><fieldset aria-label="Rows shown"></fieldset></details>
<button type="reset" name="all" hidden>Show all</button>
</form>
<output aria-live="polite"></output>"""


def write_page(
    file: Path,
    *,
    title: str,
    runs: pd.DataFrame,
    parts: Sequence[Table | Plot],
    beside: Sequence[Path] = (),
) -> None:
    """Write a page that needs no network: the parts in their order, then every run.

    Args:
        beside: Further files to link to.
    """
    bodies = {
        part.title: figure_html(part, beside=file.parent)
        if isinstance(part, Plot)
        else table_html(part)
        for part in parts
    }
    bodies["Runs"] = runs_html(runs, beside=file.parent)
    links = "\n".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in bodies)
    sections = "\n".join(
        f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>\n{body}</section>'
        for name, body in bodies.items()
    )
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="caption">{escape(captions.provenance(runs))} {_statuses(runs)}</p>
</header>
<div class="bar">
<nav aria-label="Sections">
{links}
</nav>
{CONTROLS}
</div>
<main>
{sections}
</main>
{_footer(beside, folder=file.parent)}<script>
{_asset("page.js")}</script>
</body>
</html>
"""
    with replaced(file) as page:
        page.write(text.encode())


def table_html(table: Table) -> str:
    """Render a table with caption and notes; an entry leads to the runs behind it."""
    groups = "".join(
        f'<th scope="colgroup" colspan="{span}">{escape(heading)}</th>'
        for heading, span in heading_spans(table)
    )
    kinds = [""] * num_numbers(table) + [TEXT] * table.num_text_columns
    names = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for kind, (_, name) in zip(kinds, table.columns, strict=True)
    )
    bodies: list[list[str]] = [[]]
    for row in table.rows:
        if row.opens_section and bodies[-1]:
            bodies.append([])
        bodies[-1].append(_row(row, kinds))
    body = "\n".join("<tbody>\n" + "\n".join(rows) + "\n</tbody>" for rows in bodies)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(table.title)}">'
        f"<table>\n<thead>\n<tr><td></td>{groups}</tr>\n"
        f'<tr><th scope="col" class="text">row</th>{names}</tr>\n</thead>\n{body}\n</table></div>\n'
        f'<p class="caption">{escape(table.caption)}</p>\n'
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
    )


def figure_html(plot: Plot, *, beside: Path) -> str:
    """Render a plot, whose marks may be links, with links to its files."""
    links = " ".join(
        f'<a href="{quote(os.path.relpath(path, beside))}">{path.suffix[1:].upper()}</a>'
        for path in (plot.png, plot.svg)
    )
    caption = f"{escape(plot.caption)} " if plot.caption else ""
    return (
        f'<figure><div class="scroll" role="region" tabindex="0" aria-label="{escape(plot.title)}">'
        f"{inline_svg(plot.svg, title=plot.title)}</div>\n"
        f"<figcaption>{caption}{links}</figcaption></figure>\n"
    )


def _row(row: Row, kinds: Sequence[str]) -> str:
    entries = "".join(
        f"<td{kind}>{_linked(entry)}</td>" for kind, entry in zip(kinds, row.entries, strict=True)
    )
    label = escape(row.label)
    return f'<tr data-row="{label}"><th scope="row">{label}</th>{entries}</tr>'


def _linked(entry: Entry) -> str:
    if not (entry.source and entry.text):
        return escape(entry.text)
    kind = entry.text if entry.text in ("failed", "interrupted", "running") else "value"
    return f'<a class="{kind}" href="#{escape(entry.source)}">{escape(entry.text)}</a>'


def _footer(paths: Sequence[Path], *, folder: Path) -> str:
    links = " ".join(
        f'<a href="{quote(os.path.relpath(path, folder))}">{escape(path.name)}</a>'
        for path in paths
    )
    return f"<footer>The same tables: {links}</footer>\n" if links else ""


def _asset(name: str) -> str:
    return files("macformer.tables").joinpath(name).read_text(encoding="utf-8")


def _anchor(name: str) -> str:
    return "section-" + quote(name.lower().replace(" ", "-"))


def _statuses(runs: pd.DataFrame) -> str:
    counts = runs["status"].value_counts()
    return ", ".join(
        f'<span class="status {status}">{count} {status}</span>' for status, count in counts.items()
    )
