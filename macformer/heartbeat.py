"""Signs of life of a sweep for its watchers: the progress of a cell, and the cells left to run.

outputs/<sweep>/.sweep-<host>-<pid>.json    cells that a sweep at work has yet to finish
outputs/<sweep>/<cell>/progress.json        how far a cell is, while it is at work

Both are removed when their process ends normally. No result depends on them: they are written
without waiting for the disk, errors of a full disk are ignored, and readers accept what they find.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from macformer.whole_file import whole_file

PROGRESS_NAME = "progress.json"
PLANS = ".sweep-*.json"


def write_progress(run_dir: Path, **values: Any) -> None:
    """Say how far a cell is: ``phase``, ``step``, ``max_steps`` and whatever else is known."""
    _replace(run_dir / PROGRESS_NAME, {**_who(), **values})


def remove_progress(run_dir: Path) -> None:
    with suppress(OSError):
        (run_dir / PROGRESS_NAME).unlink(missing_ok=True)


@contextmanager
def announced(run_dirs: Sequence[Path]) -> Iterator[None]:
    """Say which cells this process will run, until it has."""
    name = PLANS.replace("*", f"{socket.gethostname()}-{os.getpid()}")
    plans: dict[Path, list[str]] = {}
    for run_dir in run_dirs:
        plans.setdefault(run_dir.parent / name, []).append(run_dir.name)
    for path, names in plans.items():
        _remove_orphans(path.parent)
        _replace(path, {**_who(), "cells": names})
    try:
        yield
    finally:
        for path in plans:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def read_plans(folder: Path) -> list[dict[str, Any]]:
    """Read what the sweeps at work in a folder will run; one that has ended counts no more."""
    plans = [read_sign(path) for path in sorted(folder.glob(PLANS))]
    return [plan for plan in plans if plan is not None and is_alive(plan) is not False]


def read_sign(path: Path) -> dict[str, Any] | None:
    """Read a file of this module; None where it is not, or not whole."""
    try:
        sign = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return sign if isinstance(sign, dict) else None


def is_alive(sign: dict[str, Any]) -> bool | None:
    """Say whether the process that wrote a sign still runs; None on another machine."""
    if sign.get("host") != socket.gethostname() or not isinstance(sign.get("pid"), int):
        return None
    try:
        os.kill(sign["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _who() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}


def _remove_orphans(folder: Path) -> None:
    """Remove the plans of sweeps that were killed on this machine."""
    for path in folder.glob(PLANS):
        sign = read_sign(path)
        if sign is not None and is_alive(sign) is False:
            path.unlink(missing_ok=True)


def _replace(path: Path, sign: dict[str, Any]) -> None:
    with suppress(OSError), whole_file(path, durable=False) as file:
        file.write(json.dumps(sign).encode())
