from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from macformer.tables import make_tables


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
        if tag not in ("meta", "img"):
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
    assert len(files) == 12  # a config and a log for each of six runs
    for link in files:
        assert not Path(link).is_absolute()
        assert (page.parent / unquote(link)).is_file()


def test_the_page_needs_no_network(page):
    parsed = Page(page.read_text())
    assert len(parsed.sources) == 1
    assert parsed.sources[0].startswith("data:image/svg+xml;base64,")
    assert "http" not in page.read_text()


def test_text_of_a_run_is_never_markup(page):
    text = page.read_text()
    assert "&lt;b&gt;bad &amp; worse&lt;/b&gt;" in text
    assert "<new>" not in text
