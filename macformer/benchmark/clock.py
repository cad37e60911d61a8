"""How long a call takes: of a CPU its own time, of a GPU what the device is busy with.

On a GPU a call of some launches takes the host longer than the device, and a clock around it would
time Python. A graph of the call is replayed instead, as training replays it, between two events of
the device. Several inputs take turns in it, so that none is found in the device's cache. All graphs
share their memory, for only one of them runs at a time.
"""

import time
from collections.abc import Callable, Sequence

import torch

from macformer.training.capture import memory_pool, side_stream

Call = Callable[[], object]

GPU_INPUTS = 3  # that take turns: at benchmark sizes more than a cache of 50 MiB holds
_REPLAYED_SECONDS = 0.02  # between two events, whose resolution is half a microsecond
_WARMUP_CALLS = 3


def make_stopwatch(
    calls: Sequence[Call], device: torch.device, *, cpu_time: bool
) -> Callable[[], float]:
    """Return what measures the mean seconds of a call, once, each time that it is called.

    Args:
        calls: One call on each of several inputs.
        cpu_time: On a CPU, take this process's own time, which other processes do not disturb.
    """
    if device.type == "cuda":
        return _replay(calls, device)
    clock = time.process_time if cpu_time else time.perf_counter

    def measure() -> float:
        start = clock()
        for call in calls:
            call()
        return (clock() - start) / len(calls)

    return measure


def _replay(calls: Sequence[Call], device: torch.device) -> Callable[[], float]:
    with torch.cuda.device(device):  # events and replays go to the current one
        replay = _record(calls, device)
        num_replays = max(1, round(_REPLAYED_SECONDS / _between_events(replay, 3)))

    def measure() -> float:
        with torch.cuda.device(device):
            return _between_events(replay, num_replays) / len(calls)

    return measure


def _record(calls: Sequence[Call], device: torch.device) -> Call:
    graph, stream = torch.cuda.CUDAGraph(), side_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARMUP_CALLS):
            for call in calls:
                call()
    torch.cuda.current_stream(device).wait_stream(stream)
    with torch.cuda.graph(graph, pool=memory_pool(device), stream=stream):
        for call in calls:
            call()
    return graph.replay


def _between_events(replay: Call, count: int) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(count):
        replay()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3 / count
