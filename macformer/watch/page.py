"""A sweep on a page that reloads itself while anything runs."""

import os
from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from macformer.watch import words
from macformer.watch.cells import STATES, CellView
from macformer.watch.estimate import seconds_left, sweep_left
from macformer.whole_file import replaced

FILE_NAME = "watch.html"
RELOAD_SECONDS = 10
CURVE_SIZE = (110, 26)  # pixels
COLUMNS = ("row", "task", "seed", "state", "progress", "validation", "", "test %", "left")


def write_watch_page(
    file: Path, views: Sequence[CellView], *, title: str, now: datetime, at_work: bool
) -> None:
    """Replace the page by one of this moment; a browser that reads it finds a whole one.

    Args:
        at_work: Whether there will be another moment.
    """
    left = seconds_left(views)
    rows = "\n".join(
        _row(view, left.get(view.path), beside=file.parent) for view in sorted(views, key=_order)
    )
    done, rest = sum(view.state == "finished" for view in views), sweep_left(views)
    end = words.end(rest, now=now)
    reload = f'<meta http-equiv="refresh" content="{RELOAD_SECONDS}">\n' if at_work else ""
    tables = '<a href="index.html">tables</a>' if (file.parent / "index.html").exists() else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{reload}<title>{done}/{len(views)} {escape(title)}</title>
<style>
{files("macformer.watch").joinpath("page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<progress max="{max(len(views), 1)}" value="{done}">{done} of {len(views)}</progress>
<p><b>{words.counts(views)}</b>. {end}</p>
<p class="soft">As of {now:%Y-%m-%d %H:%M:%S}{"" if at_work else "; nothing runs"}. {tables}</p>
<div class="scroll" role="region" tabindex="0" aria-label="Cells"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
</body>
</html>
"""
    with replaced(file) as page:
        page.write(text.encode())


def curve_svg(curve: Sequence[tuple[int, float]], *, max_steps: int | None) -> str:
    """Draw validation accuracy over the steps of the whole run, from its least to its greatest."""
    if not curve:
        return ""
    width, height = CURVE_SIZE
    values = [value for _, value in curve]
    low, span = min(values), max(values) - min(values) or 1.0
    last = max(max_steps or 0, curve[-1][0], 1)
    points = [
        (
            round(2 + (width - 4) * step / last, 1),
            round(2 + (height - 4) * (1 - (v - low) / span), 1),
        )
        for step, v in curve
    ]
    x, y = points[-1]
    line = " ".join(f"{x},{y}" for x, y in points)
    label = f"validation accuracy from {100 * low:.1f} to {100 * max(values):.1f} %"
    return (
        f'<svg class="curve" width="{width}" height="{height}" role="img" aria-label="{label}">'
        f'<polyline points="{line}"/><circle cx="{x}" cy="{y}" r="2"/></svg>'
    )


def _order(view: CellView) -> tuple[int, str]:
    return STATES.index(view.state), view.name


def _row(view: CellView, left: float | None, *, beside: Path) -> str:
    begun = view.state in ("running", "interrupted") and view.max_steps
    bar = f'<progress max="{view.max_steps}" value="{view.step}"></progress> ' if begun else ""
    steps = f"{view.step:,} of {view.max_steps:,}" if begun else ""
    kind = "silent" if view.silent is not None else view.state
    last = f"{100 * view.curve[-1][1]:.1f} %" if view.curve else ""
    row = escape(view.row or view.name)
    link = quote(Path(os.path.relpath(view.path, beside)).as_posix())
    name = f'<a href="{link}/">{row}</a>' if view.state != "waiting" else row
    reason = f' <span class="soft">{escape(view.reason)}</span>' if view.reason else ""
    return (
        f'<tr><th scope="row">{name}</th><td>{escape(view.task)}</td>'
        f"<td>{'' if view.seed is None else view.seed}</td>"
        f'<td class="{kind}">{escape(words.state(view))}{reason}</td>'
        f"<td>{bar}{steps}</td><td>{curve_svg(view.curve, max_steps=view.max_steps)}</td>"
        f"<td>{last}</td><td>{'' if view.accuracy is None else f'{100 * view.accuracy:.2f}'}</td>"
        f"<td>{words.duration(left) if view.state in ('running', 'waiting') else ''}</td></tr>"
    )
