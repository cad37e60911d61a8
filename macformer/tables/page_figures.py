"""Put the plots of a page into it as they are, so that their marks can be links."""

import re
from html import escape
from pathlib import Path

# What a file of its own needs and a part of a page does not.
PROLOGUE = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
NAMESPACES = re.compile(r'\sxmlns(:\w+)?="[^"]*"')
SIZE = re.compile(r'\s(width|height)="([\d.]+)pt"')
NAMES = re.compile(r'(?<=\sid=")(?=[^"])|(?<=url\(#)|(?<=<use xlink:href="#)')


def inline_svg(file: Path, *, title: str) -> str:
    """Return the drawing in a file of matplotlib's, its names made its own within a page."""
    text = PROLOGUE.sub("", file.read_text(encoding="utf-8")).strip()
    head, rest = text.split(">", 1)
    head = NAMESPACES.sub("", head)
    head = SIZE.sub(lambda match: f' {match[1]}="{float(match[2]) * 4 / 3:.0f}"', head)
    head = head.replace("<svg", f'<svg role="group" aria-label="{escape(title)}"', 1)
    return NAMES.sub(f"{file.stem}-", f"{head}>{rest}")
