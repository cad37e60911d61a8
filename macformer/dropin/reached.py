"""Make sure that what was put in is what runs, and runs once.

A layer may be computed from its weights by one fused function, or a model may choose its attention
in a way that no search in its source finds. Both would run softmax, and nobody would notice.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from macformer.attention import BatchPreSBN
from macformer.dropin.sites import DropinError

_HOOKS = "_macformer_hooks"


def watch(model: nn.Module, children: Mapping[str, nn.Module]) -> None:
    """Raise after a forward pass of the model that went by an attention that was put in.

    Each must be reached once in evaluation, whatever was reached in training: a model may choose a
    fused function there alone. In training layers may be left out by chance (layerdrop), so that
    only a model none of whose layers was ever reached counts. Later passes in the same mode are not
    held to it: a decoder that writes word by word asks its encoder once, outside of the model.

    Args:
        children: The attention put in, by the name of the module around it.
    """
    changing = any(_changes(child) for child in children.values())
    if changing:
        refuse_recomputation(model)
    waiting = {training: set(children) for training in (True, False)}
    handles: list[Any] = [model.register_forward_hook(partial(_check, len(children), waiting))]
    for name, child in children.items():
        handles.append(child.register_forward_pre_hook(partial(_arrive, name, waiting)))
    if changing:
        handles.append(model.register_forward_pre_hook(refuse_recomputation))
    model.__dict__[_HOOKS] = handles


def stop_watching(model: nn.Module) -> None:
    """Take the hooks of a model away, and those of models within it."""
    for module in model.modules():
        for handle in module.__dict__.pop(_HOOKS, ()):
            handle.remove()


def refuse_recomputation(model: nn.Module, *args: Any) -> None:
    """Refuse gradient checkpointing around what changes in each forward pass of training.

    The backward pass would run it a second time, with other features or statistics.
    """
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise DropinError(
            f"{type(model).__name__} checkpoints activations, and its attention changes in every "
            "forward pass of training; use gradient_checkpointing_disable(), or "
            "attention.redraw=false, or ppsbn=with in place of with_batch"
        )


def _changes(child: nn.Module) -> bool:
    return any(
        getattr(module, "redraw", False) or isinstance(module, BatchPreSBN)
        for module in child.modules()
    )


def _arrive(name: str, waiting: dict[bool, set[str]], child: nn.Module, *args: Any) -> None:
    waiting[child.training].discard(name)
    waiting[True].discard(name)  # of a part that stays in evaluation while the rest is trained


def _check(num_layers: int, waiting: dict[bool, set[str]], model: nn.Module, *args: Any) -> None:
    missed = waiting[model.training]
    if missed and (not model.training or len(missed) == num_layers):
        raise DropinError(
            f"{type(model).__name__} ran without the attention put into "
            f"{', '.join(sorted(missed))}: it computes softmax there by some other way"
        )
