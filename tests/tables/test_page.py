import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from macformer.tables import make_tables
from macformer.tables.page_figures import inline_svg


class Page(HTMLParser):
    """Collects ids, links and embedded sources, and checks that tags nest."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.ids += [known["id"]] if "id" in known else []
        self.links += [known["href"]] if "href" in known else []
        self.sources += [known["src"]] if "src" in known else []
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(write_run, write_stopped, sweep, tmp_path) -> Path:
    for task in ("listops", "text"):
        for seed in (0, 1):
            write_run(task=task, seed=seed)
    write_run(attention="user's 100% <new>")
    write_stopped(task="text", attention="rfa", reason="<b>bad & worse</b>")
    make_tables([sweep], out=tmp_path / "elsewhere")
    return tmp_path / "elsewhere" / "index.html"


def test_every_link_leads_somewhere(page):
    parsed = Page(page.read_text())
    assert len(parsed.ids) == len(set(parsed.ids))
    inside = [link[1:] for link in parsed.links if link.startswith("#")]
    files = [link for link in parsed.links if not link.startswith("#")]
    assert set(inside) <= set(parsed.ids)
    # folder, config and log of each of six runs; a plot as PNG and SVG; the tables in four formats
    assert len(files) == 6 * 3 + 2 + 4
    for link in files:
        assert not Path(link).is_absolute()
        assert (page.parent / unquote(link)).exists()


def test_the_page_needs_no_network(page):
    text = page.read_text()
    assert Page(text).sources == []
    assert "http" not in text and "url(" not in text.replace("url(#", "")
    assert text.count("<svg ") == 1 and "<script>" in text and "<style>" in text


def test_names_within_drawings_do_not_meet(tmp_path):
    drawing = """<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/x.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt" height="36pt" viewBox="0 0 72 36"
 xmlns="http://www.w3.org/2000/svg"><metadata><a id="x"/></metadata>
<g id="a" clip-path="url(#b)"><a xlink:href="#run"><use xlink:href="#c"/></a></g></svg>"""
    (tmp_path / "bubble.svg").write_text(drawing)
    shown = inline_svg(tmp_path / "bubble.svg", title="Speed & more")
    assert shown.startswith(
        '<svg role="group" aria-label="Speed &amp; more" width="96" height="48"'
    )
    inside = '<g id="bubble-a" clip-path="url(#bubble-b)"><a xlink:href="#run">'
    assert inside + '<use xlink:href="#bubble-c"/></a></g></svg>' in shown
    assert "http" not in shown and "metadata" not in shown


def test_text_of_a_run_is_never_markup(page):
    text = page.read_text()
    assert "&lt;b&gt;bad &amp; worse&lt;/b&gt;" in text
    assert "<new>" not in text


def test_marks_and_curves_of_a_figure_lead_to_their_runs(write_run, sweep):
    (write_run() / "metrics.csv").write_text("step,val/accuracy\n1,0.3\n2,0.4\n")
    make_tables([sweep])
    text = (sweep / "index.html").read_text()
    (key,) = re.findall(r'<tr id="([^"]+)"', text)
    figures = text.split("<figure>")[1:]
    assert len(figures) == 2  # the front and the curve
    assert all(f'xlink:href="#{key}"' in figure for figure in figures)
