"""Which variants a folder of configurations brings."""

from pathlib import Path
from typing import NamedTuple

import configs

OURS = Path(configs.__path__[0]).resolve()
GROUPS = ("attention", "mixer")


class Variant(NamedTuple):
    """An attention or a mixer: a file of one of the two groups."""

    folder: Path
    group: str
    name: str

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


def find_variants(folder: Path, *groups: str) -> list[Variant]:
    """List the variants of some groups in a folder; a name with _ in front is a base of others."""
    return [
        Variant(folder, group, path.stem)
        for group in groups
        for path in sorted((folder / group).glob("[!_]*.yaml"))
    ]


def find_own_variants(folder: Path) -> list[Variant]:
    """List what a user's folder adds to this project's variants.

    Raises:
        ValueError: If it adds nothing, or one of this project's files would win over one of its.
    """
    found = find_variants(folder, *GROUPS)
    hidden = {str(variant) for variant in found} & set(map(str, find_variants(OURS, *GROUPS)))
    if hidden:
        raise ValueError(f"{folder}: {', '.join(sorted(hidden))} exist already; rename yours")
    if not found:
        raise ValueError(f"{folder} has no attention/*.yaml and no mixer/*.yaml")
    return found
