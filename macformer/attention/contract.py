"""What every attention shares: how it is built, what it declares, and how padding is kept out."""

import inspect
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


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


def has_joint_queries(module: nn.Module) -> bool:
    """Say whether what a query gets depends on the other queries."""
    return bool(getattr(module, "joint_queries", False))


def state_size(module: nn.Module, *, seq_len: int, head_dim: int, value_dim: int) -> int:
    """Count the numbers that a head keeps of a sequence to answer queries: all keys and values.

    Or what a module says that it keeps in their place.
    """
    declared = getattr(module, "state_size", None)
    if declared is None:
        return seq_len * (head_dim + value_dim)
    return declared(seq_len=seq_len, head_dim=head_dim, value_dim=value_dim)


def blank_padding(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    key_padding_mask: Bool[Tensor, "B S"] | None,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H S E"], Float[Tensor, "B H S Ev"]]:
    """Take out of padding whatever could reach present tokens as 0 times infinity.

    Padded keys and values become zero. Where L = S the mask holds for the queries, too: what is not
    finite in a padded one becomes zero, and the rest stays, since a pooling may read its output.
    The gradients at padded keys and values are zero. A row still leaves padding out of its sums.

    Raises:
        ValueError: If the mask is not boolean, or has no entry for each key.
    """
    query = blank_queries(query, key, key_padding_mask)
    return query, blank(key, key_padding_mask), blank(value, key_padding_mask)


def blank_queries(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    key_padding_mask: Bool[Tensor, "B S"] | None,
) -> Float[Tensor, "B H L E"]:
    """Put zero in place of what is not finite in padded queries; without L = S none is padding."""
    if key_padding_mask is None:
        return query
    check_mask(key_padding_mask, key)
    if query.shape[2] != key.shape[2]:
        return query
    return torch.where(key_padding_mask[:, None, :, None], query.nan_to_num(0.0, 0.0, 0.0), query)


def blank(
    x: Float[Tensor, "B H S E"], key_padding_mask: Bool[Tensor, "B S"] | None
) -> Float[Tensor, "B H S E"]:
    """Put zero in place of padded keys or values."""
    return x if key_padding_mask is None else torch.where(key_padding_mask[:, None, :, None], 0, x)


def check_mask(key_padding_mask: Tensor, key: Tensor) -> None:
    """Refuse a mask that would be read wrongly in silence.

    Raises:
        ValueError: If it is not boolean, or has no entry for each key.
    """
    if key_padding_mask.dtype != torch.bool:
        raise ValueError(
            f"key_padding_mask is {key_padding_mask.dtype}; it must be torch.bool, True at padding"
        )
    if key_padding_mask.shape != (len(key), key.shape[2]):
        raise ValueError(
            f"key_padding_mask has shape {tuple(key_padding_mask.shape)}; the keys need "
            f"{(len(key), key.shape[2])}, one entry for each"
        )


def check_length(query: Tensor, key: Tensor, *, max_seq_len: int) -> None:
    """Refuse sequences longer than what was made for each position.

    Raises:
        ValueError: If there are more queries or keys than ``max_seq_len``.
    """
    length = max(query.shape[2], key.shape[2])
    if length > max_seq_len:
        raise ValueError(f"got {length} tokens, but max_seq_len is {max_seq_len}")


def _takes(factory: Callable[..., nn.Module], name: str) -> bool:
    parameters = inspect.signature(factory).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return name in parameters or takes_any
