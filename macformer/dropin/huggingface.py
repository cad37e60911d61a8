"""The seam in Hugging Face's models: which of their modules attend, and through which function."""

import inspect
import re
from functools import cache
from typing import Any

from torch import nn
from transformers import PreTrainedModel  # pyright: ignore[reportMissingImports]

from macformer.dropin.interface import IMPLEMENTATION
from macformer.dropin.sites import BEFORE, DropinError, Site

# Attention function and dispatch, as they stand in the forward pass of each class of transformers.
_DISPATCH = "ALL_ATTENTION_FUNCTIONS.get_interface("
NOBODYS = f"{IMPLEMENTATION}-by-macformer.dropin.load"  # never registered
_NUM_HEADS = ("num_heads", "num_attention_heads", "n_heads")
_HEAD_DIM = ("head_dim", "attention_head_size")


def find_sites(model: nn.Module) -> dict[str, Site]:
    """Find the modules that ask for their attention function, by name."""
    return {
        name: _site(name, module)
        for name, module in model.named_modules()
        if _dispatches(type(module))
    }


@cache
def _dispatches(kind: type[nn.Module]) -> bool:
    """Read it in the source, as transformers itself does: no attribute tells."""
    try:
        return _DISPATCH in inspect.getsource(kind.forward)
    except (OSError, TypeError):  # a class made at run time has no source
        return False


def _site(name: str, module: nn.Module) -> Site:
    config = getattr(module, "config", None)
    num_heads = _first(module, _NUM_HEADS) or _first(config, _NUM_HEADS)
    head_dim = _first(module, _HEAD_DIM)
    if head_dim is None and num_heads is not None:
        width = _first(module, ("embed_dim", "hidden_size")) or _first(config, ("hidden_size",))
        head_dim = None if width is None else width // num_heads
    reason = _reason(module)
    if num_heads is None or head_dim is None:
        reason = f"{type(module).__name__} does not say how many heads of which width it has"
    return Site(
        name,
        module,
        num_heads=num_heads or 0,
        head_dim=head_dim or 0,
        reason=reason,
        window=getattr(module, "sliding_window", None),
    )


def _first(owner: Any, names: tuple[str, ...]) -> int | None:
    values = (getattr(owner, name, None) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _reason(module: nn.Module) -> str | None:
    """Say why softmax must stay."""
    if getattr(module, "is_causal", False):
        return "it is causal"
    if "CrossAttention" in type(module).__name__ or getattr(module, "is_decoder", False):
        return "it attends to another sequence"
    if getattr(module, "sliding_window", None) is not None:
        return "its window slides, in linear time already"
    return None


def dispatch(model: nn.Module, sites: dict[str, Site]) -> None:
    """Let the models within a model call :func:`macformer.dropin.interface.attend`.

    Raises:
        DropinError: If one of them goes on with the implementation that it had.
    """
    roots = _roots(model).values()
    before = [root.config._attn_implementation for root in roots]  # of one object, maybe
    for root, implementation in zip(roots, before, strict=True):
        root.__dict__[BEFORE] = implementation
        root.set_attn_implementation(IMPLEMENTATION)
    for name, site in sites.items():
        config: Any = site.module.config
        if config._attn_implementation != IMPLEMENTATION:
            raise DropinError(
                f"{name} ({type(site.module).__name__}) stays with "
                f"attn_implementation={config._attn_implementation}: its model does not let it go"
            )


def undo_dispatch(model: nn.Module) -> None:
    """Give back the implementations from before."""
    changed: list[Any] = [
        module
        for module in model.modules()
        if isinstance(module, PreTrainedModel) and BEFORE in module.__dict__
    ]
    for module in changed:
        module.set_attn_implementation(module.__dict__.pop(BEFORE))
    for root in _roots(model).values():
        forget(root)


def remember(model: nn.Module, row: dict[str, Any]) -> None:
    """Write into the configurations of the models within a model what their attention is.

    Each is saved by its own ``save_pretrained``, and names its layers from itself on.

    ``attn_implementation`` in a saved configuration keeps those from loading softmax in silence who
    know nothing of the replacement: transformers refuses a name that it does not know, and where
    this module is imported, ours refuses an attention that nobody has put in. A model that asks for
    no implementation would not notice, so that its name is one that nobody knows.
    """
    for name, root in _roots(model).items():
        prefix = f"{name}." if name else ""
        layers = [x.removeprefix(prefix) for x in row["layers"] if x.startswith(prefix)]
        if layers:
            asks = any(_dispatches(type(module)) for module in root.modules())
            root.config.macformer = {**row, "layers": layers}
            root.config.attn_implementation = IMPLEMENTATION if asks else NOBODYS


def forget(model: nn.Module) -> None:
    """Take out of a configuration what :func:`remember` wrote."""
    for name in ("macformer", "attn_implementation"):
        vars(getattr(model, "config", model)).pop(name, None)


def longest(model: nn.Module) -> int | None:
    """Return the longest sequence that the configuration of a model allows; None if it is mute."""
    lengths = []
    for root in _roots(model).values():
        positions = num_positions(root)
        lengths.append(_num_image_tokens(root) if positions is None else positions)
    known = [length for length in lengths if length is not None]
    return max(known) if known and len(known) == len(lengths) else None


def num_positions(model: nn.Module) -> int | None:
    """Return for how many tokens a model has positions; None if it does not say.

    Models as RoBERTa number tokens from behind the id of padding, so that the rows of the table up
    to that one are nobody's: of 514 positions 512 are left.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    reserved = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        and name.endswith("position_embeddings")
        and module.padding_idx is not None
    ]
    return positions - max(reserved, default=0)


def _num_image_tokens(model: Any) -> int | None:
    """Count the tokens of an image: those that have a position, and registers, which have none."""
    if not hasattr(model.config, "image_size"):
        return None
    tables = [
        parameter.shape[-2]
        for name, parameter in model.named_parameters()
        if re.search(r"position_embeddings?(\.weight)?$", name)
    ]
    return max(tables) + getattr(model.config, "num_register_tokens", 0) if tables else None


def _roots(model: nn.Module) -> dict[str, Any]:
    """Return the outermost models of transformers by name."""
    roots: dict[str, Any] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") or outer == "" for outer in roots)
        if isinstance(module, PreTrainedModel) and not inside:
            roots[name] = module
    return roots
