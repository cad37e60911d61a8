"""No attention at all: the control that shows what tokens say one by one."""

from jaxtyping import Bool, Float
from torch import Tensor, nn


class NoAttention(nn.Module):
    """Pass the values through, so that tokens meet in the pooling alone.

    With :class:`~macformer.attention.UniformAttention` the second control: a row means something by
    its distance from both.
    """

    self_attention_only = True

    def __init__(self, *, num_heads: int, head_dim: int):
        super().__init__()

    def forward(
        self,
        query: Float[Tensor, "B H N E"],
        key: Float[Tensor, "B H N E"],
        value: Float[Tensor, "B H N Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B N"] | None = None,
    ) -> Float[Tensor, "B H N Ev"]:
        return value.clone()
