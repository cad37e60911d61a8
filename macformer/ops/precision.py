"""In which precision operators compute, whatever their inputs and autocast say."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def without_autocast(function: Callable[Concatenate[Tensor, P], T]) -> Callable[..., T]:
    """Let a function of tensors choose its own precision, under autocast too."""

    @wraps(function)
    def run(first: Tensor, *args: P.args, **kwargs: P.kwargs) -> T:
        if not torch.is_autocast_enabled(first.device.type):
            return function(first, *args, **kwargs)
        with torch.autocast(first.device.type, enabled=False):
            return function(first, *args, **kwargs)

    return run


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of x, float32 at least, which sums over many tokens need."""
    return torch.promote_types(x.dtype, torch.float32)
