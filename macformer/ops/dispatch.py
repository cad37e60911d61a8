"""Whether the Triton kernels take an operator's inputs, and what is said where they do not."""

import warnings
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

MAX_DIM = 128  # of a row in a kernel's registers
TILE = 16  # tokens of a kernel's tile, or more
MAX_TILES = 65_535  # on the second axis of a CUDA grid


def takes_kernels(name: str, query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Say whether the Triton kernels run; on CUDA, a fallback is named once with its reason."""
    if not query.is_cuda:
        return False
    reason = why_not(query, key, value)
    if reason is not None:
        _warn_once(name, reason)
    return reason is None


def why_not(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """Return what keeps the Triton kernels from these inputs, None where nothing does."""
    dtypes = {x.dtype for x in (query, key, value)}
    dim = max(query.shape[-1], value.shape[-1])
    if len(dtypes) > 1:
        return f"query, key and value have the dtypes {query.dtype}, {key.dtype}, {value.dtype}"
    if query.dtype == torch.float64:
        return "the kernels have no float64"
    if dim > MAX_DIM:
        return f"a head of {dim} is wider than {MAX_DIM}"
    lengths = query.shape[-2], key.shape[-2]
    if sum(-(-length // TILE) for length in lengths) > MAX_TILES:  # on the way back, side by side
        return f"{lengths[0]} queries and {lengths[1]} keys are more than {TILE * MAX_TILES} tokens"
    if find_spec("triton") is None:
        return "triton is not installed"
    return None


@lru_cache
def _warn_once(name: str, reason: str) -> None:
    warnings.warn(
        f"{name} runs as tiles of plain torch, many times slower than its kernels: {reason}",
        stacklevel=2,
    )
