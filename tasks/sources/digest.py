"""One checksum for the bytes of files, which a user can compare with that of sha256sum."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.store.manifest import file_sha256, write_json

_REMEMBERED = "sources"


def digest_of(files: Sequence[Path], *, data_dir: Path) -> str:
    """Return the SHA-256 of a file; of several, :func:`combined`.

    It is remembered below data_dir with sizes and times, so that a later call only looks at these.
    """
    stats = [file.stat() for file in files]
    signature = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
    memory = _memory_of(files, data_dir=data_dir)
    remembered = _recall(memory)
    if remembered.get("signature") == signature and isinstance(remembered.get("sha256"), str):
        return remembered["sha256"]
    checksum = combined([file_sha256(file) for file in files])
    # A data folder that cannot be written to costs this hashing at each call, nothing more.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, {"signature": signature, "sha256": checksum})
    return checksum


def last_digest_of(files: Sequence[Path], *, data_dir: Path) -> str | None:
    """Return the checksum that files had when they were last looked at, if they ever were."""
    return _recall(_memory_of(files, data_dir=data_dir)).get("sha256")


def combined(checksums: Sequence[str]) -> str:
    """Return the checksum of several, which is that of a lone one, or that of their lines."""
    if len(checksums) == 1:
        return checksums[0]
    return hashlib.sha256("".join(f"{checksum}\n" for checksum in checksums).encode()).hexdigest()


def _memory_of(files: Sequence[Path], *, data_dir: Path) -> Path:
    paths = [str(file.absolute()) for file in files]
    key = hashlib.sha256("\n".join(paths).encode()).hexdigest()[:8]
    return data_dir / _REMEMBERED / f"{files[0].name}-{key}.json"


def _recall(memory: Path) -> dict[str, Any]:
    try:
        remembered = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}
