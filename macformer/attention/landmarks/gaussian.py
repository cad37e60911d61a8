"""Gaussian attention: the kernel of softmax attention without its denominator."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops import gaussian_attention


class GaussianAttention(nn.Module):
    r"""Sum the values with Gaussian weights (Chen et al. 2021, there called kernelized attention).

    .. math:: o_l = \sum_s \exp\left(-\frac{\|q_l - k_s\|^2}{2 \sqrt E}\right) v_s

    Nothing is divided out, so that the output grows with the number of tokens near the query.
    Divided by the sums of its weights it would be softmax attention whose logits have the bias
    :math:`-\|k_s\|^2 / (2 \sqrt E)`.

    Args:
        dropout: Share of the weights dropped in training.
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
        q, k, v = blank_padding(query, key, value, key_padding_mask)
        return gaussian_attention(
            q,
            k,
            v,
            key_padding_mask=key_padding_mask,
            dropout=self.dropout if self.training else 0.0,
        )
