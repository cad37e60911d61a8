"""What was found of a table or of series as one page that needs no other file."""

import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from warnings import catch_warnings, filterwarnings

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.describe.description import Description
from tasks.store.manifest import SPLITS

_COLOUR, _MARK = "#0072B2", "#D55E00"  # of Okabe and Ito's palette
_MOST_BARS = 30
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right}"
    "th:first-child,td:first-child{text-align:left}tr+tr{border-top:1px solid #ddd}"
    "svg{max-width:100%;height:auto}pre{overflow-x:auto;background:#f4f4f4;padding:1rem}"
)


def write_page(path: Path, found: Description, *, title: str) -> None:
    """Write the remarks, the classes of each split, lengths, channels, floors and the task."""
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in found.remarks)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<ul>{remarks}</ul>" if remarks else "<p>Nothing stands out.</p>",
        "<h2>Classes</h2>",
        _table(["class", *SPLITS], _class_rows(found)),
        _drawn(lambda axis: _draw_classes(axis, found), height=_height(found)),
        "<h2>Lengths</h2>",
        _drawn(lambda axis: _draw_lengths(axis, found), height=3.5),
    ]
    if found.channels:
        names = ["channel", "mean", "deviation", "missing"]
        parts += ["<h2>Channels</h2>", _table(names, _channel_rows(found))]
    if found.floors:
        rows = [
            [name, f"{100 * floor['accuracy']:.1f} %", floor["recipe"]]
            for name, floor in found.floors.items()
        ]
        parts += ["<h2>Floors</h2>", _table(["floor", "accuracy", "how"], rows)]
    parts += ["<h2>Task</h2>", f"<pre>{escape(found.yaml)}</pre>"]
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"{''.join(parts)}</html>\n"
    )
    path.write_text(html, encoding="utf-8")


def _class_rows(found: Description) -> list[list[str]]:
    counts = found.counts
    return [[name, *(f"{counts[split][name]:,}" for split in SPLITS)] for name in found.classes]


def _channel_rows(found: Description) -> list[list[str]]:
    return [
        [name, f"{mean:.4g}", f"{deviation:.4g}", f"{100 * missing:.1f} %"]
        for name, mean, deviation, missing in found.channels
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _height(found: Description) -> float:
    return 1 + 0.28 * min(len(found.classes), _MOST_BARS)


def _draw_classes(axis: Axes, found: Description) -> None:
    names = sorted(found.classes, key=lambda name: found.counts["train"][name])
    names = names[-_MOST_BARS:]
    axis.barh(
        # A dollar sign would begin a formula.
        [name[:40].replace("$", r"\$") for name in names],
        [found.counts["train"][name] for name in names],
        color=_COLOUR,
    )
    axis.set_xlabel("training rows")


def _draw_lengths(axis: Axes, found: Description) -> None:
    lengths = np.maximum(found.lengths, 1)
    edges = np.geomspace(lengths.min(), lengths.max() + 1, 40)
    axis.hist(lengths, bins=edges.tolist(), color=_COLOUR)
    axis.axvline(found.max_len, color=_MARK, linestyle="--", label=f"max_len {found.max_len:,}")
    axis.set(xlabel=f"{found.unit} of a training row", ylabel="rows", xscale="log")
    axis.legend(frameon=False)


def _drawn(draw: Callable[[Axes], None], *, height: float) -> str:
    """Return a drawing as SVG that stands within a page; its letters are the browser's."""
    figure = Figure(figsize=(8, height), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    draw(axis)
    file = io.StringIO()
    with rc_context({"svg.hashsalt": "describe", "svg.fonttype": "none"}), catch_warnings():
        filterwarnings("ignore", "Glyph .* missing")  # here, where texts are but measured
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    return svg[svg.index("<svg") :]
