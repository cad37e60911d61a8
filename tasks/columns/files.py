"""Find the files of a path, and read each by the kind that its name ends with."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.columns.delimited import header_of, read_delimited
from tasks.columns.json_lines import keys_of, read_json_lines
from tasks.columns.parquet import fields_of, read_parquet
from tasks.columns.row import Advance, Form, Row
from tasks.errors import DataError, Unavailable
from tasks.sources.content import list_files

__all__ = ["JSON", "Form", "Row", "column_names", "find_files", "read_rows"]

_DELIMITED = (".csv", ".tsv", ".txt")
JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet",)
SUFFIXES = (*_DELIMITED, *JSON, *_PARQUET)


def find_files(path: str, *, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Return the files of a path: itself, those that a pattern matches, or those of a folder.

    Raises:
        DataError: If there is none, or one is of a kind that cannot be read.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        files = [file for file in list_files(root, ["*"]) if file.suffix.lower() in suffixes]
    elif root.exists():
        files = [root]
    else:
        files = [Path(name) for name in sorted(glob.glob(str(root))) if Path(name).is_file()]
    if not files:
        what = f"holds no file of {', '.join(suffixes)}" if root.is_dir() else "is no file"
        raise Unavailable(f"{root} {what}; give a file, a folder of them, or a pattern as *.csv")
    for file in files:
        if file.suffix.lower() not in suffixes:
            raise DataError(
                f"{file} is of no kind that can be read; its name must end with one of "
                f"{', '.join(suffixes)} (unpack it first if it is packed)"
            )
    return files


def read_rows(
    paths: Sequence[Path], columns: Sequence[str], *, form: Form, advance: Advance | None = None
) -> Iterator[Row]:
    """Yield the values of some columns of files, in the order asked for, row by row.

    Args:
        advance: Called now and then with the bytes read of all files so far.

    Raises:
        DataError: If a file has no such column, or is damaged; with the line where it can be said.
    """
    before = 0
    for path in paths:
        suffix = path.suffix.lower()
        report = _beginning_at(before, advance)
        if suffix in _PARQUET:
            yield from read_parquet(path, columns, advance=report)
        elif suffix in JSON:
            yield from read_json_lines(path, columns, form=form, advance=report)
        else:
            yield from read_delimited(path, columns, form=form, advance=report)
        report(path.stat().st_size)
        before += path.stat().st_size


def column_names(path: Path, *, form: Form) -> list[str]:
    """Return the columns of a file: for JSON lines the keys of its first object."""
    suffix = path.suffix.lower()
    if suffix in _PARQUET:
        return fields_of(path)
    return keys_of(path, form=form) if suffix in JSON else header_of(path, form=form)


def _beginning_at(before: int, advance: Advance | None) -> Advance:
    return (lambda _: None) if advance is None else lambda done: advance(before + done)
