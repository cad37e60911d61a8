"""What the site computes when it is built: the page of rows, formulas, figures out of CSV files.

``{{ratio FILE ROWS MODE LENGTH}}`` in a page becomes the least and the largest ratio to softmax
that a file beside the page holds for some rows: names or patterns, joined by commas.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from rows import describe_rows  # beside this file

FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\w$`])\$(?! )([^$\n`]+?)\$(?!\w)", re.DOTALL)
RATIO = re.compile(r"\{\{ratio (\S+) (\S+) (\S+) ([\d,]+)\}\}")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of rows, which is written from configurations and docstrings."""
    files.append(File.generated(config, "rows.md", content=describe_rows()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in figures and formulas, in the prose around code."""
    if page.file.src_uri == "index.md":  # the site opens with the README
        markdown = Path(config.docs_dir).parents[1].joinpath("README.md").read_text()
        markdown = markdown.replace("](docs/pages/", "](")
        markdown = markdown.replace("](macformer/tables/published.csv)", "]")
    folder = Path(config.docs_dir, page.file.src_uri).parent
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    for index in range(0, len(parts), 2):
        text = RATIO.sub(lambda match: _ratio(folder, *match.groups()), parts[index])
        parts[index] = FORMULA.sub(_formula, text)
    return "".join(parts)


def _formula(match: re.Match[str]) -> str:
    block, inline = match.groups()
    if block is None:
        return convert(inline)
    return f"\n{convert(block, display='block')}\n"


def _ratio(folder: Path, file: str, rows: str, mode: str, length: str) -> str:
    """Show the range of one seed's mean ratios, to two significant digits."""
    frame = pd.read_csv(folder / file)
    patterns = rows.split(",")
    chosen = frame["attention"].map(lambda name: any(fnmatchcase(name, p) for p in patterns))
    at = frame["length"] == int(length.replace(",", ""))
    found = frame[chosen & (frame["mode"] == mode) & at].groupby("attention")["ratio"].mean()
    if found.empty:
        raise ValueError(f"{folder / file} has no {rows}, {mode} at {length}")
    low, high = (f"{value:.2g}" for value in (found.min(), found.max()))
    return low if low == high else f"{low} to {high}"
