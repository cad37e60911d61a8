"""Which attentions and mixers a folder of configurations brings."""

from pathlib import Path
from typing import NamedTuple

import configs

OURS = Path(configs.__path__[0]).resolve()


class Variant(NamedTuple):
    """An attention or a mixer: a file of one of the two groups, ``mine/elu`` in a folder there."""

    folder: Path
    group: str
    name: str

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


def find_variants(folder: Path, *groups: str) -> list[Variant]:
    """List the variants of some groups in a folder; a name with _ in front is a base of others.

    A folder in a group is a part of it, unless it is a group of ours, as ``attention/sampler``.
    """
    return [
        Variant(folder, group, "/".join(parts))
        for group in groups
        for parts in sorted(_names(folder / group))
        if len(parts) == 1 or not (OURS / group / parts[0]).is_dir()
    ]


def _names(folder: Path) -> list[tuple[str, ...]]:
    names = [path.relative_to(folder).with_suffix("").parts for path in folder.rglob("*.yaml")]
    return [parts for parts in names if not any(part.startswith("_") for part in parts)]
