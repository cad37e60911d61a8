"""The page in a browser: sorting, hiding, a phone's width and paper."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from macformer.tables import make_tables

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: {', '.join(BROWSERS)}"),
]

# What a user does, in frames as wide as a desk's screen, a phone's and a sheet of paper.
VISIT = """
const frame = (id) => document.getElementById(id).contentWindow;
const settle = () => new Promise((done) => setTimeout(done, 50));
const column = (table, index) =>
  [...table.tBodies].map((body) => [...body.rows].map((row) => row.cells[index].textContent));
const shown = (page) => [...page.querySelectorAll("section table")].map((table) =>
  [...table.querySelectorAll("tr[data-row]")].filter((row) => row.getClientRects().length)
    .map((row) => row.dataset.row));

async function visit() {
  const found = {};
  const page = frame("desk").document;
  const table = page.querySelector("section table");
  const headers = [...table.tHead.rows].at(-1).cells;
  const orders = () => [...headers].map((header) => header.getAttribute("aria-sort"));
  found.before = column(table, 1);
  found.clicks = [];
  for (let click = 0; click < 3; click++) {
    const button = headers[1].querySelector("button");
    button.focus();
    found.focused = page.activeElement === button;
    button.click();
    found.clicks.push({ order: orders()[1], column: column(table, 1), rows: column(table, 0) });
  }
  headers[0].querySelector("button").click();
  found.byName = column(table, 0);
  headers[3].querySelector("button").click();
  found.onlyOne = orders().filter(Boolean).length;

  const controls = page.getElementById("controls");
  const type = async (text) => {
    controls.filter.value = text;
    controls.filter.dispatchEvent(new Event("input", { bubbles: true }));
    await settle();
  };
  found.all = shown(page);
  await type("rfa ppsbn");
  found.filtered = shown(page);
  found.said = page.querySelector("output").value;
  controls.all.click();
  await settle();
  found.again = shown(page);
  controls.querySelector("input[value=uniform]").click();
  await settle();
  found.unchecked = shown(page);

  const link = page.querySelector("td a.value");
  link.click();
  await settle();
  found.target = page.querySelector("tr:target")?.dataset.row ?? null;
  found.linked = link.closest("tr").dataset.row;

  const phone = frame("phone").document;
  const width = phone.documentElement;
  found.phone = { page: width.scrollWidth, screen: width.clientWidth };
  const box = [...phone.querySelectorAll(".scroll")].find((b) => b.scrollWidth > b.clientWidth);
  box.scrollLeft = 80;
  await settle();
  const label = box.querySelector("tbody th");
  found.phone.label = label.getBoundingClientRect().left - box.getBoundingClientRect().left;
  found.phone.scrolled = box.scrollLeft;

  const paper = frame("paper");
  const style = (name) => paper.getComputedStyle(paper.document.querySelector(name));
  found.paper = {
    controls: style("#controls").display, nav: style("nav").display, table: style("table").display,
    boxes: style(".scroll").overflowX, background: style("body").backgroundColor,
    headings: style("thead button").display,
  };
  return found;
}
addEventListener("load", async () => {
  let result;
  try { result = await visit(); } catch (error) { result = { error: String(error.stack) }; }
  const out = document.createElement("pre");
  out.id = "result";
  out.textContent = JSON.stringify(result);
  document.body.replaceChildren(out);
});
"""


def see(page: str, folder: Path) -> dict[str, Any]:
    """Open a page in three frames of one browser, and return what a visit finds."""
    printed = page.replace("@media print", "@media all")
    frames = {"desk": (page, 1200), "phone": (page, 375), "paper": (printed, 1000)}
    text = ""
    for name, (content, width) in frames.items():
        (folder / f"{name}.html").write_text(content)
        text += f'<iframe id="{name}" width="{width}" src="{name}.html"></iframe>'
    visit = folder / "visit.html"
    visit.write_text(f"<!doctype html><body>{text}<script>{VISIT}</script></body>")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--allow-file-access-from-files"]  # the frames of one another
    command += ["--virtual-time-budget=20000", f"--user-data-dir={folder / 'browser'}"]
    ended = subprocess.run([*command, visit.as_uri()], capture_output=True, text=True, timeout=240)
    found = re.search(r'<pre id="result">(.*?)</pre>', ended.stdout, re.DOTALL)
    assert found, ended.stderr[-2000:]
    result = json.loads(html.unescape(found[1]))
    assert "error" not in result, result["error"]
    return result


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, Any]:
    sweep = tmp_path_factory.mktemp("sweep")
    accuracies = {
        ("softmax", "without"): 0.4,
        ("uniform", "without"): 0.09,
        ("rfa", "without"): 0.385,
        ("rfa", "with"): 0.41,
    }
    for (attention, ppsbn), accuracy in accuracies.items():
        write_run(sweep, attention=attention, ppsbn=ppsbn, accuracy=accuracy)
    write_run(sweep, attention="broken", accuracy=None)
    make_tables([sweep])
    return see((sweep / "index.html").read_text(), sweep)


def write_run(sweep: Path, *, attention: str, accuracy: float | None, ppsbn: str = "without"):
    rates = {f"{kind}_per_second": 1000.0 for kind in ("examples", "tokens", "positions")}
    record: dict[str, Any] = {"schema": 1, "status": "failed", "reason": "out of memory"}
    record |= {"task": "listops", "attention": attention, "ppsbn": ppsbn, "recipe": "smoke"}
    record |= {"seed": 0, "device": "laptop"}
    if accuracy is not None:
        score = {"step": 9, "val": accuracy, "test": accuracy}
        record |= {"status": "finished", "reason": None, "exclusive": True}
        record |= {"accuracy": {"best": score, "last": score}, "num_parameters": 1000}
        record |= {"majority_rate": 0.2, "train": {**rates, "peak_memory_gib": 0.5}}
        record |= {"inference": {**rates, "peak_memory_gib": 0.25}}
        record |= {"floors": {"first token": {"accuracy": 0.36}}}
    folder = sweep / f"{attention}-{ppsbn}"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(record))


RESULTS = ["40.00", "9.00§", "failed", "38.50", "41.00"]  # softmax, uniform, then by name


def test_a_click_sorts_numbers_downwards_then_upwards_then_as_before(seen):
    down, up, back = seen["clicks"]
    assert seen["before"][0] == back["column"][0] == RESULTS
    assert down["column"][0] == ["41.00", "40.00", "38.50", "9.00§", "failed"]
    assert up["column"][0] == ["9.00§", "38.50", "40.00", "41.00", "failed"]
    assert [down["order"], up["order"], back["order"]] == ["descending", "ascending", None]
    assert down["rows"][0][0] == "rfa + ppSBN"


def test_floors_stay_below_the_rows_and_sort_among_themselves(seen):
    down, up, _ = seen["clicks"]
    assert down["column"][1] == ["36.00", "20.00"] and up["column"][1] == ["20.00", "36.00"]


def test_names_sort_upwards_and_one_column_at_a_time_says_that_it_is_sorted(seen):
    assert seen["byName"][0] == ["broken", "rfa", "rfa + ppSBN", "softmax", "uniform"]
    assert seen["onlyOne"] == 1


def test_headers_can_have_the_keyboard_s_focus(seen):
    assert seen["focused"]


def test_a_filter_hides_rows_in_every_table_and_says_so(seen):
    assert all(set(rows) == {"rfa + ppSBN"} for rows in seen["filtered"] if rows)
    assert len([rows for rows in seen["filtered"] if rows]) >= 2
    assert re.fullmatch(r"\d+ of \d+ rows hidden", seen["said"])
    assert seen["again"] == seen["all"]


def test_a_box_unchecked_hides_its_row_alone(seen):
    for before, after in zip(seen["all"], seen["unchecked"], strict=True):
        assert after == [row for row in before if row != "uniform"]


def test_an_entry_leads_to_its_run(seen):
    assert seen["target"] == seen["linked"] is not None


def test_a_phone_scrolls_tables_in_their_boxes_and_never_the_page(seen):
    phone = seen["phone"]
    assert phone["page"] <= phone["screen"] <= 375
    assert phone["scrolled"] == 80 and phone["label"] == 0  # names stay where they are


def test_paper_has_no_controls_no_boxes_and_light_colours(seen):
    assert seen["paper"] == {
        "controls": "none",
        "nav": "none",
        "table": "table",
        "boxes": "visible",
        "background": "rgb(255, 255, 255)",
        "headings": "contents",  # text alone: of a button the next sheet would have a blank
    }
