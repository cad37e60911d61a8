"""What the pages list is what there is: choices, recipes, tasks, studies, commands and links."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest

import configs

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = Path(configs.__path__[0])
PAGES = ROOT / "docs" / "pages"
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
WRITTEN_WITH_THE_SITE = {PAGES / "rows.md"}


def options(group: str) -> set[str]:
    return {path.stem for path in (CONFIGS / group).glob("[!_]*.yaml")}


def rows(page: Path, header: str) -> list[list[str]]:
    """Return the cells of the table that begins with a header."""
    lines = page.read_text().partition(f"\n{header}\n")[2].splitlines()[1:]
    table = lines[: lines.index("")]
    assert table, f"{page} has no table {header}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def choices_of_the_guide() -> dict[str, set[str]]:
    """Group the options by the group that stands before them; of a link there are none."""
    found: dict[str, set[str]] = {}
    group = ""
    for first, second, _ in rows(PAGES / "guide.md", "| group | options | what it decides |"):
        group = first.strip("`") or group
        found.setdefault(group, set()).update(names(second))
    return found


ELSEWHERE = {"attention": set(), "recipe": set(), "study": set()}  # pages of their own have them


def test_the_guide_lists_every_group_and_every_option():
    groups = {str(path.parent.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")} - {"."}
    assert choices_of_the_guide() == {group: options(group) for group in groups} | ELSEWHERE


RECIPES = "| `recipe` | source | model on ListOps | steps x batch on ListOps | what it turns on |"
TASKS = "| task | rows (train / validation / test) | default source | other sources |"


@pytest.mark.parametrize(
    ("page", "header", "group"),
    [("protocols.md", RECIPES, "recipe"), ("data.md", TASKS, "task")],
    ids=["recipe", "task"],
)
def test_a_page_lists_every_option_of_its_group(page, header, group):
    listed = [names(first) for first, *_ in rows(PAGES / page, header)]
    assert set().union(*listed) == options(group)


def test_the_ratios_of_the_page_of_speed_are_those_of_its_rows():
    frame = pd.read_csv(PAGES / "studies" / "speed.csv")
    lengths = (512, 1024, 4096, 8192)
    header = "| rows | pass | 512 | 1,024 | 4,096 | 8,192 |"
    for first, mode, *shown in rows(PAGES / "studies" / "speed.md", header):
        chosen = frame[frame["attention"].isin(names(first)) & (frame["mode"] == mode.strip("`"))]
        means = chosen.groupby(["length", "attention"])["ratio"].mean()
        ends = [(means[length].min(), means[length].max()) for length in lengths]
        texts = [dict.fromkeys(f"{end:.2g}" for end in pair) for pair in ends]
        assert [" to ".join(text) for text in texts] == shown, first


def test_every_study_is_linked_from_their_overview():
    text = (PAGES / "studies" / "index.md").read_text()
    assert options("study") <= set(re.findall(r"\]\((\w+)\.md\)", text))


def test_the_readme_lists_every_command():
    listed = rows(ROOT / "README.md", "| command | what it does |")
    assert {first.strip("`") for first, _ in listed} == set(SCRIPTS)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site and a forge make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower())) for title in headings}


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted(PAGES.rglob("*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_link_leads_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target in WRITTEN_WITH_THE_SITE:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken
