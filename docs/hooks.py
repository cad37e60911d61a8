"""What the site computes when it is built: the page of rows, and formulas."""

import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from rows import describe_rows  # beside this file

FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\w$`])\$(?! )([^$\n`]+?)\$(?!\w)", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of rows, which is written from configurations and docstrings."""
    files.append(File.generated(config, "rows.md", content=describe_rows()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in formulas, in the prose around code."""
    if page.file.src_uri == "index.md":  # the site opens with the README
        markdown = Path(config.docs_dir).parents[1].joinpath("README.md").read_text()
        markdown = markdown.replace("](docs/pages/", "](")
        published = "[Published figures](macformer/tables/published.csv)"
        markdown = markdown.replace(published, "Published figures")
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    for index in range(0, len(parts), 2):
        parts[index] = FORMULA.sub(_formula, parts[index])
    return "".join(parts)


def _formula(match: re.Match[str]) -> str:
    block, inline = match.groups()
    if block is None:
        return convert(inline)
    return f"\n{convert(block, display='block')}\n"
