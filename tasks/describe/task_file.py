"""The file of a task: what every description of files writes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.columns import Files
from tasks.describe.quote import quoted, quoted_list, quoted_or_null, quoted_path
from tasks.table import Expected, Shares


def task_file(
    base: str,
    name: str,
    *,
    files: Files,
    expected: Expected,
    shares: Shares,
    options: Iterable[str],
    comments: Iterable[str],
    command: str,
) -> str:
    """Write a task.

    Args:
        base: Of whose kind it is, "table" or "series".
        options: Lines of what this kind alone has.
        comments: Lines of what was found.
        command: What it is written by.
    """
    form = files.form
    num_rows = ", ".join(
        f"{split}: {number}" for split, number in (expected.num_rows or {}).items()
    )
    comments = [f"Written by {command}", *comments]
    lines = [
        f"# macformer-train --config-dir my task={name} recipe=smoke logger=curve",
        *(f"# {line}" for comment in comments for line in comment.splitlines()),
        f"defaults: [_{base}, _self_]",
        "",
        f"name: {name}",
        f"path: {quoted_path(files.train)}",
        f"path_validation: {quoted_path(files.validation)}",
        f"path_test: {quoted_path(files.test)}",
        f"sha256: {files.sha256}",
        f"encoding: {quoted(form.encoding)}",
        f"separator: {quoted_or_null(form.separator)}",
        f"quotes: {str(form.quotes).lower()}",
        *options,
        f"classes: {quoted_list(expected.classes)}",
        f"num_classes: {expected.num_classes}",
        f"class_counts: {expected.class_counts}   # training rows",
        f"num_rows: {{{num_rows}}}",
        f"validation_fraction: {shares.validation}",
        f"test_fraction: {shares.test}",
        f"split_seed: {shares.seed}",
    ]
    return "\n".join(lines) + "\n"


def floor_lines(floors: Mapping[str, Any]) -> Iterator[str]:
    """Say what predictors without attention reach."""
    for name, floor in floors.items():
        yield f"floor of {100 * floor['accuracy']:.1f} %, {name}: {floor['recipe']}"
