"""The seam in Hugging Face's models: one attention function, and the masks that it is given.

A model of transformers asks a table of functions for the one that its configuration names. The one
registered here calls the module that its caller holds as the child ``macformer``: its parameters
and buffers are thereby the model's own. Registration is global, and done when this is imported.
"""

import inspect
import math
from collections.abc import Callable
from functools import cache
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import (  # pyright: ignore[reportMissingImports]
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import (  # pyright: ignore[reportMissingImports]
    sdpa_attention_forward,
)
from transformers.masking_utils import (  # pyright: ignore[reportMissingImports]
    bidirectional_mask_function,
    sdpa_mask,
)

from macformer.dropin.observe import ask
from macformer.dropin.sites import BEFORE, CHILD, NAME, DropinError, Site

IMPLEMENTATION = "macformer"  # "sdpa" in it would make transformers check more

# Attention function and dispatch, as they stand in the forward pass of each class of transformers.
_DISPATCH = "ALL_ATTENTION_FUNCTIONS.get_interface("
_NUM_HEADS = ("num_heads", "num_attention_heads", "n_heads")
_HEAD_DIM = ("head_dim", "attention_head_size")
# What an attention is given beside queries, keys, values and padding, and would change its result.
_BEYOND = (
    "position_bias",
    "softcap",
    "s_aux",
    "sinks",
    "indices",
    "block_indices",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "sliding_window",
    "output_attentions",
)


def attend(
    module: nn.Module,
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B K S E"],
    value: Float[Tensor, "B K S Ev"],
    attention_mask: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "B L H Ev"], None]:
    """Attend by the child of a module, or by softmax where the module has a place kept empty.

    Attention dropout has no meaning for most children, and is left out; weights are not returned.

    Raises:
        DropinError: If the module was never looked at, or is asked for what its child cannot do.
    """
    if CHILD not in module._modules:
        raise DropinError(
            f"{type(module).__name__} has attn_implementation={IMPLEMENTATION} and no replaced "
            "attention; call macformer.dropin.replace_attention, or load the model by "
            "macformer.dropin.load"
        )
    child = module._modules[CHILD]
    if child is None:
        return _attend_by_softmax(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **options
        )
    query, key, value, mask = to_contract(
        module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **options
    )
    out = ask(module, child, query, key, value, mask)
    return out.transpose(1, 2).contiguous(), None


def to_contract(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None,
    is_causal: bool | None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor, Bool[Tensor, "B S"] | None]:
    """Return queries, keys, values and padding as an attention of this project takes them.

    Heads that share keys and values get them each, and a scaling other than :math:`E^{-1/2}` goes
    into the queries.

    Raises:
        DropinError: If the module asks for more than attention to all that is not padding.
    """
    given = {name: options.get(name) for name in _BEYOND}
    asked = [name for name, value in given.items() if value is not None and value is not False]
    if is_causal or (is_causal is None and getattr(module, "is_causal", False)):
        asked.append("is_causal")
    if asked:
        raise DropinError(f"{_name(module)} needs {', '.join(asked)}: its attention must be kept")
    num_groups = query.shape[1] // key.shape[1]
    if num_groups > 1:
        key = key.repeat_interleave(num_groups, dim=1)
        value = value.repeat_interleave(num_groups, dim=1)
    factor = 1.0 if scaling is None else scaling * math.sqrt(query.shape[-1])
    if not math.isclose(factor, 1.0):
        query = query * factor
    return query, key, value, _key_padding(module, attention_mask)


def _key_padding(module: nn.Module, mask: Tensor | None) -> Bool[Tensor, "B S"] | None:
    """Read a mask: True where a key is seen, or, where it is of floats, added to the scores."""
    if mask is None:
        return None
    if mask.ndim == 4 and mask.shape[1:3] == (1, 1):
        mask = mask[:, 0, 0]
    if mask.ndim != 2:
        raise DropinError(
            f"{_name(module)} has a mask of shape {tuple(mask.shape)}, which says more than which "
            "keys are padding: its attention must be kept"
        )
    return mask < 0 if mask.is_floating_point() else ~mask.bool()


def _attend_by_softmax(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    is_causal: bool | None,
    **options: Any,
) -> tuple[Tensor, None]:
    if attention_mask is not None and attention_mask.ndim == 2:
        attention_mask = attention_mask[:, None, None, :].bool()
    return sdpa_attention_forward(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=dropout,
        scaling=scaling,
        is_causal=is_causal,
        **options,
    )


def make_mask(
    *args: Any,
    mask_function: Callable[..., Any],
    attention_mask: Tensor | None = None,
    **options: Any,
) -> Tensor | None:
    """Hand on which keys are seen, where that is all that a mask says; else the mask of SDPA.

    An implementation without a mask function is given no mask at all, and attends to padding.
    """
    if mask_function is bidirectional_mask_function:
        return attention_mask
    return sdpa_mask(*args, mask_function=mask_function, attention_mask=attention_mask, **options)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, make_mask)


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
    """Let the models within a model call :func:`attend`.

    Raises:
        DropinError: If one of them goes on with the implementation that it had.
    """
    for root in _roots(model):
        root.__dict__[BEFORE] = root.config._attn_implementation
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
    for root in _roots(model):
        if BEFORE in root.__dict__:
            root.set_attn_implementation(root.__dict__.pop(BEFORE))
            forget(root)


def remember(model: Any, row: dict[str, Any]) -> None:
    """Write into a model's configuration what its attention is, for ``save_pretrained``.

    ``attn_implementation`` in a saved configuration keeps those from loading softmax in silence who
    know nothing of the replacement: transformers refuses a name that it does not know, and where
    this module is imported, :func:`attend` refuses an attention that nobody has put in.
    """
    if isinstance(model, PreTrainedModel):
        model.config.macformer = row
        model.config.attn_implementation = IMPLEMENTATION


def forget(model: nn.Module) -> None:
    """Take out of a configuration what :func:`remember` wrote."""
    for name in ("macformer", "attn_implementation"):
        vars(getattr(model, "config", model)).pop(name, None)


def longest(model: nn.Module) -> int | None:
    """Return the longest sequence that the configuration of a model allows; None if it is mute."""
    lengths = []
    for root in _roots(model):
        config = root.config
        positions = getattr(config, "max_position_embeddings", None)
        if not isinstance(positions, int) or positions < 1:
            positions = _num_patches(config)
        lengths.append(positions)
    known = [length for length in lengths if length is not None]
    return max(known) if known and len(known) == len(lengths) else None


def _num_patches(config: Any) -> int | None:
    """Count the patches of an image with the token in front."""
    image, patch = (getattr(config, name, None) for name in ("image_size", "patch_size"))
    if not (isinstance(image, int) and isinstance(patch, int)):
        return None
    return (image // patch) ** 2 + 1


def _roots(model: nn.Module) -> list[Any]:
    """Return the outermost models of transformers."""
    roots: list[tuple[str, Any]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") or outer == "" for outer, _ in roots)
        if isinstance(module, PreTrainedModel) and not inside:
            roots.append((name, module))
    return [module for _, module in roots]


def _name(module: nn.Module) -> str:
    return module.__dict__.get(NAME, type(module).__name__)
