"""Files to try the commands on, in which the order of two events decides a label."""

import csv
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

_ROUTINE = ("login ok", "read block", "write block", "heartbeat", "rotate keys", "sync index")
_MOST = {"ok": 0.7, "slow": 0.2, "failed": 0.1}
_SHORTEST, _LONGEST = 800, 2400  # steps that a machine stays in one state
_BETWEEN, _GAP = 128, (20, 60)  # steps from one pair of events to the next, and within a pair
_HEAT, _SHAKE = 16, 8  # steps that the events last
_SEED = 0
NUM_ROWS = 6000
NUM_MACHINES, NUM_STEPS = 64, 4096


def write_sessions(path: Path, *, num_rows: int = NUM_ROWS) -> str:
    """Write a log as CSV: time, host, message and outcome of each session; say how many.

    Every session has a cache miss and a wait for the disk, with routine events around them: a slow
    one waits after the miss, others before it. One that failed has a mismatch of a checksum, too.
    """
    rng = random.Random(_SEED)
    with path.open("x", newline="", encoding="utf-8") as file:
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
    return f"{num_rows:,} sessions"


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


def write_machines(
    path: Path, *, num_machines: int = NUM_MACHINES, num_steps: int = NUM_STEPS
) -> str:
    """Write sensors as CSV: machine_id, timestamp, temperature, vibration and state of each minute.

    Every machine heats up and shakes in turn: one that is worn shakes first, others heat up first.
    """
    rng = random.Random(_SEED)
    start = datetime(2026, 1, 1)
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["machine_id", "timestamp", "temperature", "vibration", "state"])
        for machine in range(num_machines):
            for step, (temperature, vibration, state) in enumerate(_steps(num_steps, rng)):
                time = (start + timedelta(minutes=step)).isoformat()
                values = (f"{temperature:.2f}", f"{vibration:.3f}")
                writer.writerow([f"m{machine:02d}", time, *values, state])
    return f"{num_steps:,} minutes of {num_machines} machines"


def _steps(number: int, rng: random.Random) -> Iterator[tuple[float, float, str]]:
    """Yield temperature, vibration and state of one machine."""
    is_worn, temperature, left = rng.random() < 0.5, 60.0, 0
    heats = shakes = -1
    for step in range(number):
        if left == 0:
            is_worn, left = not is_worn, rng.randrange(_SHORTEST, _LONGEST)
        left -= 1
        if step % _BETWEEN == 0:
            first = step + rng.randrange(_BETWEEN - _GAP[1] - _HEAT)
            second = first + rng.randrange(*_GAP)
            shakes, heats = (first, second) if is_worn else (second, first)
        goal = 80.0 if heats <= step < heats + _HEAT else 60.0
        temperature += 0.1 * (goal - temperature) + rng.gauss(0, 0.2)
        shake = 1.0 if shakes <= step < shakes + _SHAKE else 0.0
        yield temperature, shake + rng.gauss(0, 0.2), "worn" if is_worn else "normal"


EXAMPLES = {"sessions": write_sessions, "machines": write_machines}
