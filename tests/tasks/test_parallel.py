"""Ordered map over processes: order, bounds, failures."""

import os
import signal
import subprocess
import sys
import time
from itertools import count

import pytest

from tasks.parallel import WorkerKilledError, ordered_map


def square_late_if_even(number):
    time.sleep(0.05 * (number % 2 == 0))
    return number * number


def kill_self_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail_at_three(number):
    if number == 3:
        raise KeyError(number)
    return number


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_keep_the_order_of_the_items(num_workers):
    assert list(ordered_map(square_late_if_even, range(7), num_workers=num_workers)) == [
        0, 1, 4, 9, 16, 25, 36,
    ]  # fmt: skip


def test_endless_items_are_taken_only_as_needed():
    taken = count()
    results = ordered_map(abs, taken, num_workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()
    # Four at first, and one more for each result.
    assert next(taken) == 4 + 3


def test_killed_worker_is_one_clear_error():
    with pytest.raises(WorkerKilledError, match="one of 2 worker processes was killed"):
        list(ordered_map(kill_self_at_three, range(100), num_workers=2))


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal\n"
        "from itertools import count\n"
        "from tasks.parallel import ordered_map\n"
        "if __name__ == '__main__':\n"
        "    results = ordered_map(abs, count(), num_workers=2)\n"
        "    next(results)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The pipe stays open, and run waits, as long as a worker lives.
    killed = subprocess.run(
        [sys.executable, script], stdout=subprocess.PIPE, timeout=30, check=False
    )
    assert killed.returncode == -signal.SIGKILL


@pytest.mark.parametrize("num_workers", [1, 2])
def test_error_of_the_function_is_passed_on(num_workers):
    with pytest.raises(KeyError, match="3"):
        list(ordered_map(fail_at_three, range(100), num_workers=num_workers))
