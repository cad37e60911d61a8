"""One HTML page for a sweep: tables, plots, and a link from each entry to its config and log."""

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from macformer.tables import captions
from macformer.tables.entries import result_key
from macformer.tables.formats import heading_spans, num_numbers
from macformer.tables.layout import Entry, Plot, Row, Table, percent, row_label, task_title
from macformer.tables.summary import NAME, ranked

CONFIGS = ("config.yaml", ".hydra/config.yaml", "metrics.json")
TEXT = ' class="text"'
RUN_COLUMNS = ("task", "row", "seed", "status", "best acc. %", "last acc. %", "files", "reason")
NUMBERS = ("seed", "best acc. %", "last acc. %")
STYLE = """
:root { color-scheme: light; --ink: #1c2024; --soft: #60666c; --line: #d9dde1; --link: #0a58a8; }
body { font: 14px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: var(--ink);
  max-width: 88rem; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
nav { color: var(--soft); } nav a { margin-right: 1rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
td a.value { color: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; border-block: 2px solid var(--ink); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .6rem; text-align: right; font-weight: 400; }
th[scope=row], .text { text-align: left; }
td.wrap { white-space: normal; }
thead th { font-weight: 600; border-bottom: 1px solid var(--ink); }
thead th.group { text-align: center; border-bottom: 1px solid var(--line); }
tbody tr.section > * { border-top: 1px solid var(--line); }
tbody tr:hover, tbody tr:target { background: #f2f6fa; }
p.caption, ul.notes { color: var(--soft); font-size: .87rem; max-width: 65rem; }
ul.notes { padding-left: 1.2rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
.failed { color: #b3261e; } .running { color: #8a5a00; }
"""


def write_page(
    file: Path, *, title: str, runs: pd.DataFrame, parts: Sequence[Table | Plot]
) -> None:
    """Write a page that needs no network: the parts in their order, then every run."""
    bodies = {
        part.title: _figure(part) if isinstance(part, Plot) else table_html(part) for part in parts
    }
    bodies["Runs"] = _runs_table(runs, beside=file.parent)
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in bodies)
    sections = "".join(
        f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>\n{body}</section>\n'
        for name, body in bodies.items()
    )
    file.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="caption">{escape(captions.provenance(runs))} {_statuses(runs)}</p>
<nav>{links}</nav>
{sections}
</body>
</html>
""",
        encoding="utf-8",
    )


def table_html(table: Table) -> str:
    """Render a table with caption and notes; an entry leads to the runs behind it."""
    groups = "".join(
        f'<th class="group" colspan="{span}">{escape(heading)}</th>'
        for heading, span in heading_spans(table)
    )
    kinds = _kinds(table)
    names = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for kind, (_, name) in zip(kinds, table.columns, strict=True)
    )
    rows = "\n".join(_row(row, kinds) for row in table.rows)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<div class="scroll"><table>\n<thead><tr><td></td>{groups}</tr>\n'
        f"<tr><td></td>{names}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n"
        f'<p class="caption">{escape(table.caption)}</p>\n'
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
    )


def _kinds(table: Table) -> list[str]:
    return [""] * num_numbers(table) + [TEXT] * table.num_text_columns


def _row(row: Row, kinds: Sequence[str]) -> str:
    attribute = ' class="section"' if row.opens_section else ""
    entries = "".join(
        f"<td{kind}>{_linked(entry)}</td>" for kind, entry in zip(kinds, row.entries, strict=True)
    )
    return f'<tr{attribute}><th scope="row">{escape(row.label)}</th>{entries}</tr>'


def _linked(entry: Entry) -> str:
    if not (entry.source and entry.text):
        return escape(entry.text)
    kind = entry.text if entry.text in ("failed", "running") else "value"
    return f'<a class="{kind}" href="#{escape(entry.source)}">{escape(entry.text)}</a>'


def _runs_table(runs: pd.DataFrame, *, beside: Path) -> str:
    """List every run with links to its files, relative to the page's folder."""
    lines, anchors = [], set()
    for run in ranked(runs.sort_values("seed")).to_dict("records"):
        key = result_key(run)
        anchor = "" if key in anchors else f' id="{escape(key)}"'
        anchors.add(key)
        config = next(run["folder"] / name for name in CONFIGS if (run["folder"] / name).is_file())
        logs = sorted([*run["folder"].glob("*.log"), *run["folder"].glob("metrics.csv")])
        files = " ".join(
            f'<a href="{quote(os.path.relpath(path, beside))}">{escape(path.name)}</a>'
            for path in [config, *logs]
        )
        lines.append(
            f'<tr{anchor}><th scope="row">{escape(task_title(run["task"]))}</th>'
            f'<td class="text">{escape(row_label(*(run[key] for key in NAME)))}</td>'
            f'<td>{run["seed"]}</td><td class="text {run["status"]}">{run["status"]}</td>'
            f"<td>{percent(run['accuracy.best.test'])}</td>"
            f"<td>{percent(run['accuracy.last.test'])}</td>"
            f'<td class="text">{files}</td><td class="text wrap">{escape(run["reason"])}</td></tr>'
        )
    head = "".join(
        f'<th scope="col"{"" if name in NUMBERS else TEXT}>{name}</th>' for name in RUN_COLUMNS
    )
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
    )


def _figure(plot: Plot) -> str:
    data = base64.b64encode(plot.svg.read_bytes()).decode("ascii")
    source = f"data:image/svg+xml;base64,{data}"
    caption = f'<p class="caption">{escape(plot.caption)}</p>\n' if plot.caption else ""
    return f'<figure><img alt="{escape(plot.title)}" src="{source}"></figure>\n{caption}'


def _anchor(name: str) -> str:
    return "section-" + quote(name.lower().replace(" ", "-"))


def _statuses(runs: pd.DataFrame) -> str:
    counts = runs["status"].value_counts()
    return escape(", ".join(f"{count} {status}" for status, count in counts.items()) + ".")
