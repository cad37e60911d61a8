"""The cases of a benchmark: every attention and peer at a length, ready to be called."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.functional import normalize

from macformer.attention import contract
from macformer.benchmark.clock import GPU_INPUTS, Call
from macformer.benchmark.peers import PEERS, SDPA_KERNELS
from macformer.runs.build import build_attention
from macformer.runs.config import compose
from macformer.runs.variants import OURS, find_variants

MODES = ("forward", "forward_backward")


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


def attention_names(cfg: DictConfig) -> list[str]:
    """List the rows to measure: those asked for, or every file that is not a base."""
    if cfg.attention is not None:
        return list(cfg.attention)
    folders = [OURS, *map(Path, cfg.config_dirs)]
    found = (row for folder in folders for row in find_variants(folder, "attention"))
    return sorted({row.name for row in found})


def check_rows(cfg: DictConfig) -> None:
    """Refuse rows that no folder has a file of.

    Raises:
        ValueError: With their names; or if a folder is none.
    """
    folders = [OURS, *map(Path, cfg.config_dirs)]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ValueError(f"--config-dir {', '.join(missing)} is not a folder")
    unknown = [
        name
        for name in cfg.attention or ()
        if not any((folder / "attention" / f"{name}.yaml").is_file() for folder in folders)
    ]
    if unknown:
        known = ", ".join(attention_names(OmegaConf.merge(cfg, {"attention": None})))  # pyright: ignore
        raise ValueError(f"attention {', '.join(unknown)} is unknown; rows are {known}")


@cache
def _compose_row(name: str, config_dirs: tuple[str, ...]) -> DictConfig:
    return compose(f"attention={name}", "bounds.input_norm=1.0", config_dirs=config_dirs)


def builders(cfg: DictConfig, length: int) -> dict[str, Callable[[], nn.Module]]:
    """Say how to build every attention of the configuration, and the peers, for one length."""
    shapes = {"num_heads": cfg.num_heads, "head_dim": cfg.head_dim}

    def shipped(name: str) -> nn.Module:
        # Inputs have unit norm, which is what ppSBN would hand to the attention.
        composed = _compose_row(name, tuple(cfg.config_dirs))
        return build_attention(composed, **shapes, max_seq_len=length)

    peer = shapes | {"num_features": cfg.num_features, "max_seq_len": length}
    methods = {name: partial(shipped, name) for name in attention_names(cfg)}
    peers = set(cfg.vs) | (set(SDPA_KERNELS) if is_gpu(cfg) else set())
    return methods | {
        name: partial(contract.build, PEERS[name], **peer) for name in PEERS if name in peers
    }


def build_cases(cfg: DictConfig, length: int, mode: str) -> list[Case]:
    """Draw inputs, and build every method of the configuration for them."""

    @cache  # for the first case that has room for them
    def draw() -> tuple[list[list[Tensor]], Tensor]:
        num_inputs = GPU_INPUTS if is_gpu(cfg) else 1
        inputs = [_draw_inputs(cfg, length, mode) for _ in range(num_inputs)]
        return inputs, torch.randn_like(inputs[0][-1])

    def prepare(case: Case, build: Callable[[], nn.Module]) -> None:
        inputs, grad = draw()
        method = build().to(cfg.device).train(mode == "forward_backward")
        case.calls = [_call(method, x, grad, mode) for x in inputs]

    cases = []
    for name, build in builders(cfg, length).items():
        case = Case(name, length, mode)
        attempt(case, partial(prepare, case, build))
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


def attempt(case: Case, action: Callable[[], None]) -> None:
    """Run an action of a case; what it raises becomes the case's failure, in one line."""
    try:
        action()
    except Exception as error:  # a peer may raise anything, and the others go on
        case.failure = str(error).strip().split("\n")[0][:120] or type(error).__name__


def is_gpu(cfg: DictConfig) -> bool:
    """Say whether what is measured runs on a GPU."""
    return torch.device(cfg.device).type == "cuda"
