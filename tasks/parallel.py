"""Map a function over many processes, in order and in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerKilledError(RuntimeError):
    """A worker process ended before it returned its result."""


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int
) -> Iterator[Result]:
    """Yield function(item) for each item, in the order of the items.

    At most two items per worker are in flight, so the items may be endless.

    Args:
        function: A picklable function; one worker runs it in this process.

    Raises:
        ValueError: If num_workers is less than 1.
        WorkerKilledError: If the system ends a worker, most often for want of memory.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}; it must be at least 1")
    if num_workers == 1:
        return map(function, items)
    return _map_in_pool(function, iter(items), num_workers)


def _map_in_pool(
    function: Callable[[Item], Result], items: Iterator[Item], num_workers: int
) -> Iterator[Result]:
    # Forking a process that holds threads (torch, CUDA) may deadlock; spawning never does.
    pool = ProcessPoolExecutor(
        num_workers, mp_context=get_context("spawn"), initializer=_end_with_parent
    )
    pending: deque[Future[Result]] = deque()
    try:
        pending.extend(pool.submit(function, item) for item in islice(items, 2 * num_workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    except BrokenProcessPool as error:
        raise WorkerKilledError(
            f"one of {num_workers} worker processes was killed, perhaps for want of memory; "
            "try a smaller num_workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when its parent is killed; it would wait for work forever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()
