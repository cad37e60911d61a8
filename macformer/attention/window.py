"""Any attention, held to the tokens around each one."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import (
    blank_padding,
    build,
    has_joint_queries,
    is_positional,
    is_self_attention_only,
)
from macformer.ops.band import windowed_linear_attention
from macformer.ops.present import mark_present


class Window(nn.Module):
    r"""Let each query attend to the W keys around it.

    .. math:: \{j : -(W - \lfloor W/2 \rfloor) < j - i \le \lfloor W/2 \rfloor\}

    as :class:`macformer.attention.Longformer` has it, and exactly what the attention inside makes
    of those keys. It is a control, to learn how far a task needs to look, and saves nothing.

    An attention by inner products of features may offer them: ``map_features(query, key, *,
    key_padding_mask)`` is given inputs whose padding is blank and returns the features of queries
    and of keys, which meet in a band of width W. To any other attention each query is an example of
    its own, with a sequence of W keys, which takes W times the work of a pass over the keys.

    Args:
        attention: The factory of the attention inside.
        window: W; 1 leaves a token with itself, and an even one reaches less far to the left.

    Raises:
        ValueError: If the window is empty, or the attention needs the whole sequence or more
            queries than one.
    """

    positional = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        attention: Callable[..., nn.Module],
        window: int,
    ):
        super().__init__()
        if window < 1:
            raise ValueError(f"window is {window}; it must be at least 1")
        self.window = window
        self.attention = build(
            attention, num_heads=num_heads, head_dim=head_dim, max_seq_len=window
        )
        if is_positional(self.attention) or is_self_attention_only(self.attention):
            raise ValueError(
                f"{type(self.attention).__name__} needs the whole sequence, of which a window "
                "leaves a part"
            )
        if has_joint_queries(self.attention):
            raise ValueError(
                f"what {type(self.attention).__name__} makes of a query depends on the others, "
                "and in a window a query stands alone"
            )

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        map_features = getattr(self.attention, "map_features", None)
        if map_features is None:
            return self._attend_by_examples(query, key, value, key_padding_mask)
        phi_q, phi_k = map_features(query, key, key_padding_mask=key_padding_mask)
        options = {"window": self.window, "key_padding_mask": key_padding_mask}
        return windowed_linear_attention(phi_q, phi_k, value, **options)

    def _attend_by_examples(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None
    ) -> Tensor:
        left = self.window - self.window // 2 - 1
        reach = torch.arange(self.window, device=key.device) - left
        places = torch.arange(query.shape[2], device=key.device)[:, None] + reach
        is_outside = (places < 0) | (places >= key.shape[2])
        places = places.clamp(0, key.shape[2] - 1)
        absent = ~mark_present(key, key_padding_mask)[:, places] | is_outside
        out = self.attention(
            query.transpose(1, 2).flatten(0, 1).unsqueeze(2),
            _as_examples(key, places),
            _as_examples(value, places),
            key_padding_mask=absent.flatten(0, 1),
        )
        return out.squeeze(2).unflatten(0, (len(query), -1)).transpose(1, 2)


def _as_examples(x: Tensor, places: Tensor) -> Tensor:
    """Make an example of each window: ``(B, H, S, X)`` to ``(B L, H, W, X)``."""
    return x[:, :, places].transpose(1, 2).flatten(0, 1)
