"""Rotary positions (Su et al. 2021, RoFormer) around any attention."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import (
    build,
    has_joint_queries,
    is_positional,
    is_self_attention_only,
    state_size,
)
from macformer.ops.precision import accumulation_dtype


class Rotary(nn.Module):
    r"""Rotate queries and keys by their positions, and attend.

    .. math:: (x_{2i}, x_{2i+1}) \leftarrow R(n \, \theta_i) (x_{2i}, x_{2i+1}), \qquad
        \theta_i = \mathrm{base}^{-2i / E}

    (equations 14 and 15; the pairs here are i and i + E/2, which is another order of the channels).
    Products of queries and keys then depend on the distance of their positions alone, and norms
    stay, so that the bound of ppSBN holds. It stands inside ppSBN's pre stage: centred after the
    rotation, products would depend on absolute positions again. An attention that is no function
    of these products, such as a feature map entry by entry, sees absolute positions, too.

    Args:
        attention: The factory of the attention inside.
        base: Of the frequencies.

    Raises:
        ValueError: If head_dim is odd, or the attention has positions of its own.
    """

    positional = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        max_seq_len: int,
        attention: Callable[..., nn.Module],
        base: float,
    ):
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"head_dim is {head_dim}; rotary positions need an even one")
        self.base = base
        self.attention = build(
            attention, num_heads=num_heads, head_dim=head_dim, max_seq_len=max_seq_len
        )
        if is_positional(self.attention):
            raise ValueError(
                f"{type(self.attention).__name__} knows the places of keys by itself; "
                "rotary=with is for attentions that do not"
            )

    @property
    def self_attention_only(self) -> bool:
        return is_self_attention_only(self.attention)

    @property
    def joint_queries(self) -> bool:
        return has_joint_queries(self.attention)

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        return state_size(self.attention, seq_len=seq_len, head_dim=head_dim, value_dim=value_dim)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key = self._rotate(query), self._rotate(key)
        return self.attention(query, key, value, key_padding_mask=key_padding_mask)

    def _rotate(self, x: Float[Tensor, "B H N E"]) -> Float[Tensor, "B H N E"]:
        half, dtype = x.shape[-1] // 2, accumulation_dtype(x)
        position = torch.arange(x.shape[2], device=x.device, dtype=dtype)[:, None]
        channel = torch.arange(half, device=x.device, dtype=dtype)
        angle = position * self.base ** (-channel / half)
        first, second = x.to(dtype).split(half, dim=-1)
        cos, sin = angle.cos(), angle.sin()
        rotated = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
        return rotated.to(x.dtype)
