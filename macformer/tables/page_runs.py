"""The table of all runs on a page, with links to their folders and files."""

import os
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from macformer.record import CONFIG_NAME, CURVE_NAME, METRICS_NAME
from macformer.tables.entries import result_key, row_labels
from macformer.tables.layout import percent, task_title
from macformer.tables.summary import ranked

CONFIGS = (CONFIG_NAME, METRICS_NAME)  # the latter has a copy
COLUMNS = ("task", "row", "seed", "status", "best acc. %", "last acc. %", "files", "reason")
TEXT = ' class="text"'
NUMBERS = ("seed", "best acc. %", "last acc. %")


def runs_html(runs: pd.DataFrame, *, beside: Path) -> str:
    """List every run with links relative to a folder.

    The first run of a result has the name to which the entries of tables lead.
    """
    shown = ranked(runs.sort_values("seed"))
    lines, anchors = [], set()
    for label, run in zip(row_labels(shown), shown.to_dict("records"), strict=True):
        key = result_key(run)
        anchor = "" if key in anchors else f' id="{escape(key)}"'
        anchors.add(key)
        lines.append(_run(run, label=label, anchor=anchor, beside=beside))
    head = "".join(
        f'<th scope="col"{"" if name in NUMBERS else TEXT}>{name}</th>' for name in COLUMNS
    )
    body = "\n".join(lines)
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Runs"><table>\n'
        f"<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n"
    )


def _run(run: dict[Any, Any], *, label: str, anchor: str, beside: Path) -> str:
    folder: Path = run["folder"]
    config = next(folder / name for name in CONFIGS if (folder / name).is_file())
    logs = sorted([*folder.glob("*.log"), *folder.glob(CURVE_NAME)])
    files = [(folder, "folder"), *((path, path.name) for path in (config, *logs))]
    links = " ".join(
        f'<a href="{quote(os.path.relpath(path, beside))}">{escape(name)}</a>'
        for path, name in files
    )
    return (
        f'<tr{anchor} data-row="{escape(label)}">'
        f'<th scope="row">{escape(task_title(run["task"]))}</th>'
        f'<td class="text">{escape(label)}</td>'
        f'<td>{run["seed"]}</td><td class="text {run["status"]}">{run["status"]}</td>'
        f"<td>{percent(run['accuracy.best.test'])}</td>"
        f"<td>{percent(run['accuracy.last.test'])}</td>"
        f'<td class="text">{links}</td><td class="text wrap">{escape(run["reason"])}</td></tr>'
    )
