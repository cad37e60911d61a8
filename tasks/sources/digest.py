"""One checksum for the bytes of files, which a user can compare with that of sha256sum."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.store.manifest import file_sha256, write_json

_REMEMBERED = "sources"


def digest_of(
    files: Sequence[Path], *, data_dir: Path, advance: Callable[[int], object] = lambda _: None
) -> str:
    """Return the SHA-256 of a file; of several, that of the lines of theirs, in order.

    It is remembered below data_dir with sizes and times, so that a later call only looks at these.

    Args:
        advance: Called with the bytes read after each file.
    """
    paths = [file.absolute() for file in files]
    stats = [path.stat() for path in paths]
    signature = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
    key = hashlib.sha256("\n".join(map(str, paths)).encode()).hexdigest()[:8]
    memory = data_dir / _REMEMBERED / f"{paths[0].name}-{key}.json"
    remembered = _recall(memory)
    if remembered.get("signature") == signature and isinstance(remembered.get("sha256"), str):
        return remembered["sha256"]
    checksums, done = [], 0
    for path, stat in zip(paths, stats, strict=True):
        checksums.append(file_sha256(path))
        done += stat.st_size
        advance(done)
    checksum = checksums[0]
    if len(checksums) > 1:
        checksum = hashlib.sha256("".join(f"{c}\n" for c in checksums).encode()).hexdigest()
    # A data folder that cannot be written to costs this hashing at each call, nothing more.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, {"signature": signature, "sha256": checksum})
    return checksum


def _recall(memory: Path) -> dict[str, Any]:
    try:
        remembered = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}
