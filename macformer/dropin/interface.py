"""The attention function that models of transformers are given, and the masks that it is given.

A model of transformers asks a table of functions for the one that its configuration names. The one
registered here calls the module that its caller holds as the child ``macformer``: its parameters
and buffers are thereby the model's own. Registration is global, and done when this is imported.
"""

import math
from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import (  # pyright: ignore[reportMissingImports]
    AttentionInterface,
    AttentionMaskInterface,
)
from transformers.integrations.sdpa_attention import (  # pyright: ignore[reportMissingImports]
    sdpa_attention_forward,
)
from transformers.masking_utils import (  # pyright: ignore[reportMissingImports]
    bidirectional_mask_function,
    sdpa_mask,
)

from macformer.dropin.observe import ask
from macformer.dropin.sites import CHILD, NAME, DropinError

IMPLEMENTATION = "macformer"  # "sdpa" in it would make transformers check more

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


def _name(module: nn.Module) -> str:
    return module.__dict__.get(NAME, type(module).__name__)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, make_mask)
