"""Write a table as Markdown, LaTeX (booktabs) or on the terminal."""

import re
from collections.abc import Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from macformer.record import printable
from macformer.tables.layout import TIMES, Table

MOST_WIDE = 1000  # characters of a printed table, which none comes near
LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",  # these three are other characters in TeX's own fonts
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        TIMES: r"$\times$",
        "†": r"\dag{}",
        "‡": r"\ddag{}",
        "§": r"\S{}",
        "¶": r"\P{}",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
    }
)
# What Markdown would read as emphasis, a bullet, code, a tag or an entity.
MARKDOWN = re.compile(r"[\\`*]|(?<![^\W_])_|_(?![^\W_])|<(?=[\w/!?])|&(?=#?\w+;)")
ENTITIES = {"<": "&lt;", "&": "&amp;"}


def to_markdown(table: Table) -> str:
    """Write a pipe table under its title, with caption and notes below."""
    names = [" ".join(filter(None, column)) for column in table.columns]
    aligned = ["---:"] * num_numbers(table) + ["---"] * table.num_text_columns
    lines = [["", *names], ["---", *aligned]]
    lines += [[row.label, *(entry.text for entry in row.entries)] for row in table.rows]
    body = "\n".join("| " + " | ".join(map(_pipe, line)) + " |" for line in lines)
    below = "\n\n".join(map(_markdown, [table.caption, *table.notes]))
    return f"## {_markdown(table.title)}\n\n{body}\n\n{below}\n"


def to_latex(table: Table) -> str:
    """Write a booktabs table; the document needs `\\usepackage{booktabs,graphicx}`."""
    spans = heading_spans(table)
    head = " & ".join(["", *(rf"\multicolumn{{{n}}}{{c}}{{{_tex(name)}}}" for name, n in spans)])
    rules, start = [], 2
    for name, span in spans:
        if name:
            rules.append(rf"\cmidrule(lr){{{start}-{start + span - 1}}}")
        start += span
    names = " & ".join(["", *(_tex(name) for _, name in table.columns)])
    body = []
    for row in table.rows:
        body += [r"\midrule"] if row.opens_section else []
        body.append(
            " & ".join(map(_tex, [row.label, *(entry.text for entry in row.entries)])) + r" \\"
        )
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{_tex(f'{table.title}. {table.caption}')}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * num_numbers(table)}{'l' * table.num_text_columns}}}",
        r"\toprule",
        rf"{head} \\",
        "".join(rules),
        rf"{names} \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        *(rf"{{\footnotesize\raggedright {_tex(note)}\par}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def print_tables(tables: Sequence[Table], *, console: Console) -> None:
    """Print tables with their captions.

    On a terminal a table is as wide as its numbers and the words above them need, for a row that
    wraps is easier to read than numbers of several lines; elsewhere its lines are as long as they
    come. All else fits the console.
    """
    wide = console.options.update(max_width=MOST_WIDE)
    for table in tables:
        title = Text(printable(table.title))
        view = RichTable(title=title, box=None, padding=(0, 1, 0, 0), title_justify="left")
        view.add_column("", no_wrap=True)
        for index, (heading, name) in enumerate(table.columns):
            repeats = index > 0 and table.columns[index - 1][0] == heading
            side = "right" if index < num_numbers(table) else "left"
            head = f"{'' if repeats else printable(heading)}\n{printable(name)}"
            numbers = [row.entries[index].text for row in table.rows] if side == "right" else []
            widest = max(map(cell_len, [*head.split(), *map(printable, numbers)]))
            view.add_column(Text(head), justify=side, overflow="fold", min_width=widest)
        for row in table.rows:
            if row.opens_section:
                view.add_section()
            texts = [row.label, *(entry.text for entry in row.entries)]
            view.add_row(*(Text(printable(text)) for text in texts))
        width, needed = console.width, Measurement.get(console, wide, view)
        console.width = max(width, needed.minimum if console.is_terminal else needed.maximum)
        console.print(view)
        console.width = width
        for line in [table.caption, *table.notes]:
            console.print(Text(printable(line)), style="dim")
        console.print()


def num_numbers(table: Table) -> int:
    """Count the columns that hold numbers and are aligned to the right."""
    return len(table.columns) - table.num_text_columns


def heading_spans(table: Table) -> list[tuple[str, int]]:
    """Merge neighbouring columns of one heading into (heading, number of columns)."""
    return [
        (heading, len(list(group)))
        for heading, group in groupby(table.columns, key=lambda column: column[0])
    ]


def _markdown(text: str) -> str:
    return MARKDOWN.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), printable(text))


def _pipe(text: str) -> str:
    return _markdown(text).replace("|", "\\|")


def _tex(text: str) -> str:
    return printable(text).translate(LATEX_ESCAPES)
