"""The files that a task is given, for each split that has its own."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tasks.columns.files import SUFFIXES, find_files
from tasks.columns.row import Advance, Form
from tasks.errors import DataError
from tasks.sources.digest import combined, digest_of, last_digest_of
from tasks.store.manifest import SPLITS
from tasks.store.write import progress_bar

Seen = TypeVar("Seen")


class Files(NamedTuple):
    """A user's files, and how they are written.

    Attributes:
        train: A file, a folder of files, or a pattern: those to train on, and to hold out of.
        validation: The same for validation; None where rows of train are held out.
        test: The same for the test split.
        sha256: The :func:`~tasks.sources.digest.combined` one of the splits', each of which is that
            of its files; None takes any.
    """

    train: str
    validation: str | None
    test: str | None
    sha256: str | None
    form: Form

    @property
    def patterns(self) -> dict[str, str]:
        """The splits that have files of their own, and where these are."""
        return {split: pattern for split in SPLITS if (pattern := getattr(self, split))}

    def find(self, suffixes: Sequence[str] = SUFFIXES) -> dict[str, list[Path]]:
        """Return the files of each split that has its own.

        Raises:
            DataError: If there is none, one is of a kind that cannot be read, or one is of two
                splits.
        """
        found = {split: find_files(p, suffixes=suffixes) for split, p in self.patterns.items()}
        for first, second in combinations(found, 2):
            known = {path.resolve() for path in found[first]}
            for path in found[second]:
                if path.resolve() in known:
                    raise DataError(
                        f"{path} is a file of {first} and of {second}; give each files of its own"
                    )
        return found

    def digest(self, suffixes: Sequence[str] = SUFFIXES, *, data_dir: Path) -> str:
        """Return the checksum of all files; if they are gone, the one expected or last seen.

        Raises:
            DataError: If they have another one than is expected, or never were there.
        """
        try:
            found = self._digest_now(suffixes, data_dir=data_dir)
        except DataError:
            # What was prepared from them is there, or it is said later what is missing.
            known = self.sha256 or self._last_digest(data_dir=data_dir)
            if known is None:
                raise
            return known
        if self.sha256 not in (None, found):
            raise DataError(
                f"{self.train} is not what the task was written for: its sha256 is {found}, "
                f"task.sha256 says {self.sha256}; macformer-describe writes a task for what is "
                "there now"
            )
        return found

    def confirm(self, digest: str, suffixes: Sequence[str] = SUFFIXES, *, data_dir: Path) -> None:
        """Refuse files that have no longer the checksum that they had before they were read.

        Raises:
            DataError: If they are others, or gone.
        """
        with suppress(DataError):
            if self._digest_now(suffixes, data_dir=data_dir) == digest:
                return
        raise DataError(
            f"{self.train} has changed while it was read; call again when nothing writes to it"
        )

    def _digest_now(self, suffixes: Sequence[str], *, data_dir: Path) -> str:
        found = self.find(suffixes).values()
        # Split by split: a file that moves from one to the next makes other data.
        return combined([digest_of(paths, data_dir=data_dir) for paths in found])

    def _last_digest(self, *, data_dir: Path) -> str | None:
        """Return the checksum that these files last had, where each split has a lone one."""
        files = [Path(pattern).expanduser() for pattern in self.patterns.values()]
        known = [c for file in files if (c := last_digest_of([file], data_dir=data_dir))]
        return combined(known) if len(known) == len(files) else None

    def num_bytes(self) -> int:
        """Return the size of all files; 0 if they are gone."""
        try:
            return sum(map(_total, self.find(SUFFIXES).values()))
        except DataError:
            return 0

    def read(
        self,
        look: Callable[[str, Sequence[Path], Advance], Seen],
        suffixes: Sequence[str] = SUFFIXES,
    ) -> dict[str, Seen]:
        """Look at the files of each split that has its own, with a bar.

        Args:
            look: Given a split, its files, and what to call with the bytes read of them so far.
        """
        seen = {}
        with progress_bar() as bar:
            for split, paths in self.find(suffixes).items():
                task = bar.add_task(f"read {split}", total=_total(paths))
                seen[split] = look(split, paths, partial(_advance, bar, task))
        return seen


def _total(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _advance(bar: Any, task: Any, done: int) -> None:
    bar.update(task, completed=done)
