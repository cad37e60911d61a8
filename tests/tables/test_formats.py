import html
import re
import shutil
import subprocess
from dataclasses import replace
from io import StringIO

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from macformer.tables.formats import print_tables, to_latex, to_markdown
from macformer.tables.layout import TIMES, Entry, Row, Table

TABLE = Table(
    title="Text & more",
    columns=[("speed", "ex./s"), ("speed", "rel."), ("", "source")],
    rows=[
        Row(
            "rmfa_exp", [Entry("38.37 ± 0.21"), Entry(f"1.50{TIMES}"), Entry("a|b, 100 % of {it}")]
        ),
        Row("majority class", [Entry("17.40†"), Entry(), Entry()], opens_section=True),
    ],
    caption="On a card #1, n = 3.",
    notes=["‡ costs $2, ~5^2 \\ more"],
    num_text_columns=1,
)
HAS_LATEX = (
    shutil.which("pdflatex")
    and not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode
)


def test_markdown_keeps_every_row_in_its_columns():
    lines = [line for line in to_markdown(TABLE).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    assert lines[1] == "| --- | ---: | ---: | --- |"
    assert lines[3] == "| majority class | 17.40† |  |  |"


def test_latex_is_a_booktabs_table_with_everything_escaped():
    text = to_latex(TABLE)
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [2, 3, 3, 3]
    assert r"\begin{tabular}{lrrl}" in text
    assert r"\multicolumn{2}{c}{speed}" in text and r"\cmidrule(lr){2-3}" in text
    assert (
        r"rmfa\_exp & 38.37 $\pm$ 0.21 & 1.50$\times$ & a\textbar{}b, 100 \% of \{it\} \\" in text
    )
    assert r"\ddag{} costs \$2, \textasciitilde{}5\textasciicircum{}2 \textbackslash{} more" in text


@pytest.mark.parametrize("reader", ["markdown", "markdown_it"])
@pytest.mark.parametrize(
    "text",
    [
        "* p < 0.05, adjusted",
        "-10.0*, and 3*4*5",
        "x=__main__ of <class 'int'>",
        "`a` \\* &lt;",
        "a_b_c",
    ],
)
def test_markdown_shows_every_text_as_it_is(reader, text):
    """By the reader that the site has, and by one of CommonMark."""
    module = pytest.importorskip(reader)
    render = module.markdown if reader == "markdown" else MarkdownIt().render
    shown = render(to_markdown(replace(TABLE, caption=text, notes=[])).rpartition("\n\n")[2])
    assert shown.strip() == f"<p>{html.escape(text, quote=False)}</p>"


def test_latex_shows_comparisons_as_they_are():
    text = to_latex(replace(TABLE, notes=["* p < 0.05 > § ¶"]))
    assert r"* p \textless{} 0.05 \textgreater{} \S{} \P{}" in text


@pytest.mark.skipif(not HAS_LATEX, reason="needs pdflatex with booktabs")
def test_latex_compiles(tmp_path):
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "main.tex").write_text(head + to_latex(TABLE) + r"\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:]


def test_terminal_shows_every_cell_whole():
    console = Console(width=100, record=True, file=StringIO())
    print_tables([TABLE], console=console)
    text = console.export_text()
    for row in TABLE.rows:
        for entry in row.entries:
            assert entry.text in text
    assert "On a card #1" in text


def test_without_a_terminal_no_text_is_folded():
    reason = "not decided with 0 seeds: accuracy differs by -1.2 to +3.4 points " * 3
    rows = [Row("rfa", [Entry("38.37"), Entry("1.50"), Entry(reason.strip())])]
    console = Console(file=StringIO(), width=60, force_terminal=False)
    print_tables([replace(TABLE, rows=rows)], console=console)
    assert reason.strip() in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_narrow_terminal_breaks_no_number_and_fits_what_stands_below():
    console = Console(width=20, record=True, file=StringIO())
    print_tables([TABLE], console=console)
    lines = console.export_text().splitlines()
    (row,) = [line for line in lines if line.startswith("rmfa_exp")]
    assert "38.37 ± 0.21" in row and f"1.50{TIMES}" in row
    assert {"speed", "ex./s", "rel."} <= {word for line in lines for word in line.split()}
    assert all(len(line) <= 20 for line in lines[lines.index("On a card #1, n = 3.") :])
    assert console.width == 20
