"""Time and peak memory of attentions over the length of the sequence, relative to softmax."""

import resource
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.profiler import ProfilerActivity, profile

import configs
from macformer.attention import contract
from macformer.benchmark.clock import GPU_INPUTS, Call, make_stopwatch
from macformer.benchmark.peers import PEERS, SDPA_KERNELS
from macformer.measuring import GIB, MIB, count_flops
from macformer.runs.build import build_attention
from macformer.runs.config import compose

MODES = ("forward", "forward_backward")
BASELINES = ("softmax", *SDPA_KERNELS)


@dataclass
class Case:
    """One method at one length in one mode, and what was measured of it."""

    attention: str
    length: int
    mode: str
    calls: list[Call] = field(default_factory=list)  # on several inputs
    stopwatch: Callable[[], float] = lambda: float("nan")
    seconds: list[float] = field(default_factory=list)
    peak_mib: float = float("nan")
    gflop: float = float("nan")
    failure: str = ""


def run_benchmark(cfg: DictConfig) -> pd.DataFrame:
    """Measure every combination in ``cfg``, one row each."""
    torch.set_num_threads(cfg.threads)
    if cfg.device == "cpu":
        limit_memory(int(cfg.memory_limit_gib * GIB))
    ceilings = measure_ceilings(cfg)
    rows = []
    steps = len(cfg.length) * len(cfg.mode) * len(builders(cfg)) * (1 + cfg.rounds)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=steps)

        def report(case: Case) -> None:
            description = f"{case.attention} {case.length} {case.mode}"
            progress.update(task, advance=1, description=description)

        for length in cfg.length:
            cases = [case for mode in cfg.mode for case in _cases(cfg, length, mode)]
            _measure(cases, cfg, report)
            rows += [_row(case, cfg, ceilings) for case in cases]
    return _relate(pd.DataFrame(rows))


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
            _attempt(case, partial(_measure_once, case, cfg))
    for _ in range(cfg.rounds):
        for case in cases:
            report(case)
            if not case.failure and sum(case.seconds) < cfg.seconds:
                _attempt(case, lambda case=case: case.seconds.append(case.stopwatch()))


def attention_names(cfg: DictConfig) -> list[str]:
    """List the rows to measure: those asked for, or every file that is not a base."""
    if cfg.attention is not None:
        return list(cfg.attention)
    folders = [Path(configs.__path__[0]), *map(Path, cfg.config_dirs)]
    names = {path.stem for folder in folders for path in folder.glob("attention/*.yaml")}
    return sorted(name for name in names if not name.startswith("_"))


@cache
def _compose_row(name: str, config_dirs: tuple[str, ...]) -> DictConfig:
    return compose(f"attention={name}", "bounds.input_norm=1.0", config_dirs=config_dirs)


def builders(cfg: DictConfig) -> dict[str, Callable[[], nn.Module]]:
    """Say how to build every attention of the configuration, and the peers."""
    shapes = {"num_heads": cfg.num_heads, "head_dim": cfg.head_dim}

    def shipped(name: str) -> nn.Module:
        # Inputs have unit norm, which is what ppSBN would hand to the attention.
        composed = _compose_row(name, tuple(cfg.config_dirs))
        return build_attention(composed, **shapes, max_seq_len=max(cfg.length))

    peer = shapes | {"num_features": cfg.num_features, "max_seq_len": max(cfg.length)}
    methods = {name: partial(shipped, name) for name in attention_names(cfg)}
    peers = set(cfg.vs) | (set(SDPA_KERNELS) if _is_gpu(cfg) else set())
    return methods | {
        name: partial(contract.build, PEERS[name], **peer) for name in PEERS if name in peers
    }


def _cases(cfg: DictConfig, length: int, mode: str) -> list[Case]:
    num_inputs = GPU_INPUTS if _is_gpu(cfg) else 1
    inputs = [_draw_inputs(cfg, length, mode) for _ in range(num_inputs)]
    grad = torch.randn_like(inputs[0][-1])

    def prepare(case: Case, build: Callable[[], nn.Module]) -> None:
        method = build().to(cfg.device)
        case.calls = [_call(method, x, grad, mode) for x in inputs]

    cases = []
    for name, build in builders(cfg).items():
        case = Case(name, length, mode)
        _attempt(case, partial(prepare, case, build))
        cases.append(case)
    return cases


def _draw_inputs(cfg: DictConfig, length: int, mode: str) -> list[Tensor]:
    shape = (cfg.batch_size, cfg.num_heads, length, cfg.head_dim)
    options = {"device": cfg.device, "dtype": getattr(torch, cfg.dtype)}
    query, key, value = (torch.randn(shape, **options) for _ in range(3))
    inputs = [normalize(query, dim=-1), normalize(key, dim=-1), value]
    return [x.requires_grad_(mode == "forward_backward") for x in inputs]


def _call(method: nn.Module, inputs: list[Tensor], grad: Tensor, mode: str) -> Call:
    """Return a pass of a method over inputs, which leaves nothing behind."""
    if mode == "forward":
        return torch.no_grad()(lambda: method(*inputs))

    def forward_backward() -> None:
        views = (x.view_as(x) for x in inputs)  # the FLOP counter takes no leaves
        method(*views).backward(grad)
        for x in inputs:
            x.grad = None

    return forward_backward


def _attempt(case: Case, action: Callable[[], None]) -> None:
    """Run an action of a case; what it raises becomes the case's failure, in one line."""
    try:
        action()
    except Exception as error:  # a peer may raise anything, and the others go on
        case.failure = str(error).strip().split("\n")[0][:120] or type(error).__name__


def _measure_once(case: Case, cfg: DictConfig) -> None:
    """Warm up, then take peak memory and floating-point operations, which do not vary."""
    call = case.calls[0]
    call()
    case.peak_mib = measure_peak(call, cfg.device) / MIB
    case.gflop = count_flops(call) / 1e9
    case.stopwatch = _stopwatch(case.calls, cfg)


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


def _stopwatch(calls: list[Call], cfg: DictConfig) -> Callable[[], float]:
    return make_stopwatch(calls, torch.device(cfg.device), cpu_time=cfg.threads == 1)


def measure_ceilings(cfg: DictConfig) -> tuple[float, float]:
    """Return the device's best GFLOP/s of a matrix product and GB/s of a copy, in this process.

    Of operands that are large enough to keep it busy, and do not stay in its cache.
    """
    side, num_bytes = (8192, 2**30) if _is_gpu(cfg) else (1024, 2**26)
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


def _is_gpu(cfg: DictConfig) -> bool:
    return torch.device(cfg.device).type == "cuda"


def _row(case: Case, cfg: DictConfig, ceilings: tuple[float, float]) -> dict[str, object]:
    seconds = case.seconds or [float("nan")]
    median = statistics.median(seconds)
    itemsize = getattr(torch, cfg.dtype).itemsize
    tensors = 4 if case.mode == "forward" else 12  # q, k, v, o; then q, k, v, o, do, dq, dk, dv
    size = cfg.batch_size * cfg.num_heads * case.length * cfg.head_dim * itemsize
    gigabytes = tensors * size / 1e9  # that any method moves
    return {
        "attention": case.attention,
        "mode": case.mode,
        "length": case.length,
        "rounds": len(case.seconds),
        "ms": 1e3 * median,
        "spread": (max(seconds) - min(seconds)) / median,
        "peak MiB": case.peak_mib,
        "GFLOP": case.gflop,
        "share of FLOP/s": case.gflop / median / ceilings[0],
        "MB": 1e3 * gigabytes,
        "share of bandwidth": gigabytes / median / ceilings[1],
        "failure": case.failure,
    }


def _relate(table: pd.DataFrame) -> pd.DataFrame:
    """Add the ratio to softmax, and the power of the length by which the time grows.

    On a GPU softmax counts as its fastest kernel does, whichever torch would have chosen.
    """
    softmax = table[table.attention.isin(BASELINES)]
    base = softmax.groupby(["mode", "length"]).ms.min()
    keys = pd.MultiIndex.from_frame(table[["mode", "length"]])
    place = list(table.columns).index("ms") + 1
    table.insert(place, "ratio", table.ms / base.reindex(keys).to_numpy())
    slopes = {
        name: length_exponent(group, "ms") for name, group in table.groupby(["attention", "mode"])
    }
    names = zip(table.attention, table["mode"], strict=True)
    table.insert(place + 1, "slope", [slopes[name] for name in names])
    return table


def length_exponent(rows: pd.DataFrame, column: str) -> float:
    """Fit the power of the length by which a column grows, over the longest lengths.

    Those from a quarter of the longest on, where the length outweighs what does not depend on it;
    NaN where fewer than two of them were measured.
    """
    measured = rows.dropna(subset=[column])
    measured = measured[measured["length"] >= measured["length"].max() / 4]
    if measured["length"].nunique() < 2:
        return float("nan")
    return float(np.polyfit(np.log(measured["length"]), np.log(measured[column]), 1)[0])
