"""Where a model attends: what is found there, and which of it is chosen."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

# What a replacement leaves in a model, beside the child of each attention module.
CHILD = "macformer"
NAME = "_macformer_name"  # of the module in the model, for messages
BEFORE = "_macformer_before"  # what is given back in the end

Layers = Sequence[int | str] | Callable[[str], bool]


class DropinError(ValueError):
    """An attention that cannot be replaced, or would not be reached; one line says why."""


@dataclass(frozen=True)
class Site:
    """An attention module of a model.

    Attributes:
        name: Of the module in the model.
        reason: Why its attention cannot be replaced; None where it can.
        window: How many keys a query sees to each side, where that is limited.
    """

    name: str
    module: nn.Module
    num_heads: int
    head_dim: int
    reason: str | None
    window: int | None = None


def inserted_attention(model: nn.Module) -> dict[str, nn.Module]:
    """Return the attention that was put into a model, by the names of the modules around it."""
    return {
        module.__dict__[NAME]: child
        for module in model.modules()
        if (child := module._modules.get(CHILD)) is not None
    }


def choose(sites: Sequence[Site], layers: Layers | None) -> tuple[list[Site], dict[str, str]]:
    """Divide the sites of a model into those to replace and those to keep.

    Args:
        layers: Indices among the sites, patterns of names, or a predicate on names; None for all
            that can be replaced.

    Returns:
        The sites to replace, and why each other one is kept, by its name.

    Raises:
        DropinError: If a layer does not exist, or one that was asked for cannot be replaced, or
            none is left.
    """
    wanted = {site.name for site in sites} if layers is None else _named(sites, layers)
    kept: dict[str, str] = {}
    for site in sites:
        if site.name not in wanted:
            kept[site.name] = "not chosen"
        elif site.reason is not None:
            if layers is not None and not callable(layers):
                raise DropinError(f"{site.name} cannot be replaced: {site.reason}")
            kept[site.name] = site.reason
    chosen = [site for site in sites if site.name not in kept]
    if not chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in kept.items())
        raise DropinError(f"no attention is left to replace ({reasons})")
    return chosen, kept


def _named(sites: Sequence[Site], layers: Layers) -> set[str]:
    names = [site.name for site in sites]
    if callable(layers):
        return {name for name in names if layers(name)}
    wanted: set[str] = set()
    for layer in layers:
        if isinstance(layer, str):
            found = [name for name in names if fnmatchcase(name, layer)]
        else:
            found = names[layer : layer + 1] if 0 <= layer < len(names) else []
        if not found:
            raise DropinError(
                f"no layer is {layer!r}; there are {_listed(names)}, or 0 to {len(names) - 1}"
            )
        wanted.update(found)
    return wanted


def _listed(names: Sequence[str]) -> str:
    """Name the layers once where they differ by their number alone."""
    return ", ".join(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names))
