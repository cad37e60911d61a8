"""What a layer and the wrappers ask of an attention: how it is built, and what it declares."""

import inspect
from collections.abc import Callable

from torch import nn


def build(factory: Callable[..., nn.Module], *, max_seq_len: int, **shapes: int) -> nn.Module:
    """Build a part of one layer; a factory that has no use for the length is not told it.

    Args:
        max_seq_len: The longest sequence that the layer will see, with the tokens of a pooling.
        shapes: What else the layer decides: ``num_heads`` and ``head_dim`` of an attention.
    """
    if _takes(factory, "max_seq_len"):
        shapes["max_seq_len"] = max_seq_len
    return factory(**shapes)


def is_self_attention_only(module: nn.Module) -> bool:
    """Say whether queries and keys must be the same tokens, so that L = S."""
    return bool(getattr(module, "self_attention_only", False))


def is_positional(module: nn.Module) -> bool:
    """Say whether the place of a key matters, beside what the key holds."""
    return bool(getattr(module, "positional", False))


def _takes(factory: Callable[..., nn.Module], name: str) -> bool:
    parameters = inspect.signature(factory).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return name in parameters or takes_any
