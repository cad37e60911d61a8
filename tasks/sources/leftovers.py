"""Tell the files of a data set from what operating systems and tools leave beside them."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

_NAMES = frozenset(
    {
        "__macosx",
        "icon\r",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "@eadir",
        "__pycache__",
    }
)
# ._x is the other half of x on disks of macOS; ~$x is open in an office, #x# in an editor.
_PREFIXES = (".", "~$", "#")
_SUFFIXES = ("~", ".swp", ".bak", ".orig", ":zone.identifier")


def is_leftover(path: str | PurePath) -> bool:
    """Say whether a relative path is, or lies in, something that no data set has."""
    return any(_is_leftover_name(part) for part in PurePath(path).parts if part != "..")


def without_leftovers(paths: Iterable[Path], *, root: Path) -> Iterator[Path]:
    """Leave out the leftovers below root, whatever root itself is called."""
    return (path for path in paths if not is_leftover(path.relative_to(root)))


def _is_leftover_name(name: str) -> bool:
    name = name.lower()
    return name in _NAMES or name.startswith(_PREFIXES) or name.endswith(_SUFFIXES)
