"""A run that is stopped from outside is interrupted, and the same command goes on from there."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

# What users, schedulers and closed terminals send. A program's own faults raise other signals.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
CRASHES = (
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSYS,
    signal.SIGTRAP,
)
TIME_LIMIT = 124  # exit code, as that of timeout(1)
PARENT = "MACFORMER_PARENT"  # the process without which a cell must not go on
SWEEP = "MACFORMER_SWEEP"  # the process of a sweep, whose launcher may have started this one
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Stopped(BaseException):
    """The run must end here. No ``except Exception`` on the way takes it for a failure."""

    def __init__(self, reason: str, exit_code: int):
        super().__init__(reason)
        self.exit_code = exit_code


def stop_behind(error: BaseException) -> Stopped | None:
    """Return the request to stop that an error came of, if any.

    torch answers with an error of its own where one is raised while it calls Python back, as it
    does to write a checkpoint.
    """
    origin: BaseException | None = error
    while origin is not None and not isinstance(origin, Stopped):
        origin = origin.__cause__ or origin.__context__
    return origin


@contextmanager
def stop_signals_raise(*, over: tuple[Any, ...], once: bool = False) -> Iterator[None]:
    """Raise ``Stopped`` at a signal to stop, and again at each further one.

    Args:
        over: The handlers that this one takes the place of. Others stay: a launcher's, say, or
            nohup's.
        once: Ignore further signals instead, in a cell: Ctrl-C reaches it by itself and through its
            parent, which ends it where it does not end soon.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.getsignal(s) for s in STOP_SIGNALS}
    mine = [s for s, handler in before.items() if handler in over]
    stopping = False

    def stop(signum: int, frame: Any) -> None:
        nonlocal stopping
        if stopping and once:
            return
        stopping = True
        raise Stopped(f"stopped by {signal.Signals(signum).name}", 128 + signum)

    for each in mine:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in mine:
            signal.signal(each, before[each])


def end_signal(returncode: int) -> signal.Signals | None:
    """Return the signal that ended a process, by its exit code or by that of a shell."""
    number = -returncode if returncode < 0 else returncode - 128
    try:
        return signal.Signals(number) if number > 0 else None
    except ValueError:
        return None


def num_out_of_memory_kills() -> int | None:
    """Count the processes that the system has killed for want of memory; None if it does not."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    counts = dict(line.split() for line in lines)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None


def die_with_parent() -> None:
    """Leave no cell behind a sweep that was killed, not even one killed while the cell started.

    Outside Linux the lock of the run must do. Processes that this one starts get it as parent.
    """
    if sys.platform == "linux" and PARENT in os.environ:
        _send_at_end_of_parent(signal.SIGKILL)
        if os.getppid() != int(os.environ[PARENT]):
            sys.exit("the process that started this cell has ended")
    os.environ[PARENT] = str(os.getpid())


@contextmanager
def ending_with_sweep() -> Iterator[None]:
    """Leave no worker of a launcher behind a sweep that has ended, however it did.

    A worker whose cell has stopped would wait for others, or take one that it was given before.
    """
    if sys.platform != "linux" or not _is_worker():
        yield
        return
    _send_at_end_of_parent(signal.SIGTERM)
    try:
        _leave_ended_sweep()
        yield
    finally:
        _leave_ended_sweep()


def _leave_ended_sweep() -> None:
    if os.environ[SWEEP] != str(os.getppid()):
        os._exit(128 + signal.SIGTERM)


@cache
def _is_worker() -> bool:
    """Say whether this process is a child of the sweep, once: the sweep may end before it does."""
    return os.environ.get(SWEEP) == str(os.getppid())


def _send_at_end_of_parent(signum: signal.Signals) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
