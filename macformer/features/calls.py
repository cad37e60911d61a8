"""Record what a model's attentions receive, and put others in their place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from macformer.attention import PPSBN, Rotary
from macformer.models import MultiheadAttention
from macformer.training.objectives import Batch, predict


class AttentionCall(NamedTuple):
    """What one attention, inside its wrappers where it has some, received and returned."""

    attention: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    key_padding_mask: Tensor | None
    out: Tensor


def core_attentions(model: nn.Module) -> list[nn.Module]:
    """Return the attention of each encoder layer, out of ppSBN and rotation where it is in them."""
    return [_unwrapped(m.attention) for m in model.modules() if isinstance(m, MultiheadAttention)]


def _unwrapped(attention: nn.Module) -> nn.Module:
    while isinstance(attention, PPSBN | Rotary):
        attention = attention.attention
    return attention


@torch.no_grad()
def record_attention(model: nn.Module, batch: Batch) -> list[AttentionCall]:
    """Run a batch through a model in evaluation mode, and return each layer's attention call."""
    with _recording(model) as calls:
        predict(model.eval(), batch)
    return calls


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[AttentionCall]]:
    calls: list[AttentionCall] = []

    def record(module: nn.Module, args: tuple, kwargs: dict[str, Any], out: Tensor) -> None:
        query, key, value = args
        calls.append(AttentionCall(module, query, key, value, kwargs.get("key_padding_mask"), out))

    handles = [
        attention.register_forward_hook(record, with_kwargs=True)
        for attention in core_attentions(model)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def transplant(source: nn.Module, target: nn.Module) -> nn.Module:
    """Give a model the parameters of another, and leave it its own buffers, such as features.

    Returns:
        The target.
    """
    missing, unexpected = target.load_state_dict(dict(source.named_parameters()), strict=False)
    missing_parameters = set(missing) & {name for name, _ in target.named_parameters()}
    assert not missing_parameters and not unexpected, (missing_parameters, unexpected)
    return target
