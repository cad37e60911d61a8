"""The checksums of a user's files, remembered by sizes and times: bytes are read once."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.store.manifest import write_json

FOLDER = "sources"  # below data_dir


def memory_of(name: str, place: str, *, data_dir: Path) -> Path:
    """Return the file that remembers a checksum.

    Args:
        name: For people.
        place: What sets these files apart from others of the name.
    """
    key = hashlib.sha256(place.encode()).hexdigest()[:8]
    return data_dir / FOLDER / f"{name}-{key}.json"


def last_checksum(memory: Path) -> str | None:
    """Return the checksum that files had when they were last looked at, if they ever were."""
    return _recall(memory).get("checksum")


def checksum_of(memory: Path, signature: Any, compute: Callable[[], str]) -> str:
    """Return what is remembered under this signature of sizes and times, or compute it."""
    known = _recall(memory)
    if known.get("signature") == signature:
        return known["checksum"]
    checksum = compute()
    # A data folder that cannot be written to costs this hashing at each call, nothing more.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, {"signature": signature, "checksum": checksum})
    return checksum


def _recall(memory: Path) -> dict[str, Any]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_whole = isinstance(known, dict) and isinstance(known.get("checksum"), str)
    return known if is_whole else {}
