"""The memory that tensors take."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


def measure_peak(run: Callable[[], object], device: str) -> int:
    """Return the most bytes that tensors hold at once during a run, above those before it."""
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    del result
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events: Any = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(np.cumsum([0, *(nbytes for _, nbytes in changes)]).max())
