"""Time and peak memory of attentions over the length of the sequence."""

import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress

from macformer.benchmark.cases import Case, attempt, build_cases, builders, is_gpu
from macformer.benchmark.clock import Call, make_stopwatch
from macformer.benchmark.table import describe_case, relate
from macformer.measuring import GIB, MIB, count_flops, measure_peak


def run_benchmark(cfg: DictConfig) -> pd.DataFrame:
    """Measure every combination in ``cfg``, one row each."""
    return relate(pd.DataFrame([row for rows in measure_lengths(cfg) for row in rows]))


def measure_lengths(cfg: DictConfig) -> Iterator[list[dict[str, Any]]]:
    """Measure one length after the other; yield the rows of each."""
    torch.set_num_threads(cfg.threads)
    ceilings = measure_ceilings(cfg)
    if torch.device(cfg.device).type == "cpu":
        limit_memory(int(min(cfg.memory_limit_gib * GIB, sys.maxsize)))
    methods = builders(cfg, max(cfg.length))
    steps = len(cfg.length) * len(cfg.mode) * len(methods) * (1 + cfg.rounds)
    # A thread that refreshes the bar would be measured, too.
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task("", total=steps)

        def report(case: Case) -> None:
            description = f"{case.attention} {case.length} {case.mode}"
            progress.update(task, advance=1, description=description, refresh=True)

        for length in cfg.length:
            cases = [case for mode in cfg.mode for case in build_cases(cfg, length, mode)]
            _measure(cases, cfg, report)
            rows = [describe_case(case, cfg, ceilings) for case in cases]
            del cases  # and with them what they hold
            yield rows


def limit_memory(limit: int) -> None:
    """Let a case that wants more bytes fail; no more than the hard limit of the user's shell."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _measure(cases: list[Case], cfg: DictConfig, report: Callable[[Case], None]) -> None:
    """Time the cases in interleaved rounds, so that drift of the machine hits all alike.

    A case whose time is spent sits out the rounds that are left.
    """
    for case in cases:
        report(case)
        if not case.failure:
            attempt(case, partial(_measure_once, case, cfg))
    for _ in range(cfg.rounds):
        for case in cases:
            report(case)
            if not case.failure and sum(case.seconds) < cfg.seconds:
                attempt(case, lambda case=case: case.seconds.append(case.stopwatch()))


def _measure_once(case: Case, cfg: DictConfig) -> None:
    """Warm up, then take peak memory and floating-point operations, which do not vary."""
    call = case.calls[0]
    call()
    case.peak_mib = measure_peak(call, cfg.device) / MIB
    case.gflop = count_flops(call) / 1e9
    case.stopwatch = _stopwatch(case.calls, cfg)


def _stopwatch(calls: list[Call], cfg: DictConfig) -> Callable[[], float]:
    return make_stopwatch(calls, torch.device(cfg.device), cpu_time=cfg.threads == 1)


def measure_ceilings(cfg: DictConfig) -> tuple[float, float]:
    """Return the device's best GFLOP/s of a matrix product and GB/s of a copy, in this process.

    Of operands that are large enough to keep it busy, and do not stay in its cache.
    """
    side, num_bytes = (8192, 2**30) if is_gpu(cfg) else (1024, 2**26)
    options = {"device": cfg.device, "dtype": getattr(torch, cfg.dtype)}
    a, b = (torch.randn(side, side, **options) for _ in range(2))
    source = torch.randn(num_bytes // a.itemsize, **options)
    target = torch.empty_like(source)
    product, copy = (
        _stopwatch([call], cfg) for call in (lambda: a @ b, lambda: target.copy_(source))
    )
    flops = 2 * side**3 / min(product() for _ in range(20))
    copied = 2 * source.nbytes / min(copy() for _ in range(20))
    return flops / 1e9, copied / 1e9
