"""Softmax attention: the baseline every other row is compared with."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from macformer.attention.contract import blank_padding


class SoftmaxAttention(nn.Module):
    r"""Softmax attention through torch's fused kernels.

    .. math:: o = \mathrm{softmax}(q k^\top / \sqrt{E}) v

    Args:
        dropout: Share of the weights dropped in training. Linear attentions form no weights, and
            rows compare alike only without it.
    """

    def __init__(self, *, num_heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.dropout = dropout

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        attn_mask = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attn_mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
