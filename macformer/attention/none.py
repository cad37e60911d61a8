"""No attention at all: the control that shows what tokens say one by one."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding


class NoAttention(nn.Module):
    """Pass the values through, so that tokens meet only in the pooling.

    A control like :class:`~macformer.attention.UniformAttention`: judge a row by its distance from
    both.
    """

    self_attention_only = True

    def __init__(self, *, num_heads: int, head_dim: int):
        super().__init__()

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep nothing: a query has the value of its own token."""
        return 0

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        if query.shape[2] != key.shape[2]:
            raise ValueError(
                f"got {query.shape[2]} queries and {key.shape[2]} keys; without attention each "
                "query has the value of its own token"
            )
        _, _, value = blank_padding(query, key, value, key_padding_mask)
        return value.clone()
