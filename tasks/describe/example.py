"""A log to try the commands on: what decides a session's outcome is the order of two events."""

import csv
import random
from pathlib import Path

_ROUTINE = ("login ok", "read block", "write block", "heartbeat", "rotate keys", "sync index")
_MOST = {"ok": 0.7, "slow": 0.2, "failed": 0.1}
NUM_ROWS = 6000


def write_example(path: Path, *, num_rows: int = NUM_ROWS, seed: int = 0) -> None:
    """Write sessions as CSV: time, host, message and outcome.

    Every session has a cache miss and a wait for the disk, with routine events around them: a slow
    one waits after the miss, others before it. One that failed has a mismatch of a checksum, too.
    """
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "host", "message", "outcome"])
        for row in range(num_rows):
            minutes = divmod(row * 7, 60)
            hours = divmod(minutes[0], 24)
            time = f"2026-{1 + hours[0] // 28:02d}-{1 + hours[0] % 28:02d}T{hours[1]:02d}"
            outcome = rng.choices(list(_MOST), list(_MOST.values()))[0]
            message = " ; ".join(_events(outcome, rng))
            host = f"node{rng.randrange(12)}"
            writer.writerow([f"{time}:{minutes[1]:02d}:00", host, message, outcome])


def _events(outcome: str, rng: random.Random) -> list[str]:
    events = [rng.choice(_ROUTINE) for _ in range(rng.randrange(6, 16))]
    first, second = (
        ("cache miss", "disk wait") if outcome == "slow" else ("disk wait", "cache miss")
    )
    places = sorted(rng.sample(range(len(events) + 1), 2))
    events.insert(places[0], first)
    events.insert(places[1] + 1, second)
    if outcome == "failed":
        events.insert(rng.randrange(len(events)), f"checksum mismatch {rng.randrange(10**6):06d}")
    return events
