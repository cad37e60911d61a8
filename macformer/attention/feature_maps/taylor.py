"""Attention by the second-order Taylor polynomial of exp, with exact features."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops import taylor_attention
from macformer.ops.taylor import num_quadratic_features


class TaylorAttention(nn.Module):
    r"""Attend in linear time with the weights :math:`1 + t + t^2 / 2`.

    .. math:: o_l = \frac{\sum_s K(t_{ls}) v_s}{\sum_s K(t_{ls})}, \qquad
        K(t) = 1 + t + t^2 / 2, \qquad t_{ls} = q_l \cdot k_s / \sqrt{E}

    (Arora et al. 2024, Based, equation 2; Keles et al. 2022). The polynomial is positive
    everywhere, and a sum over the :math:`E (E + 1) / 2` products of two entries and the E entries
    themselves: features without any randomness, the rival of ``rmfa_exp`` at the same kernel. Based
    projects queries and keys to 16 dimensions first, which is ``qkv_dim`` here. Where E is even,
    E / 2 of the products are kept twice, at half their weight, so that all blocks are whole.
    """

    def __init__(self, *, num_heads: int, head_dim: int):
        super().__init__()

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the sums over keys, of the constant 1 of the polynomial, too."""
        return (num_quadratic_features(head_dim) + 1) * (value_dim + 1)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        return taylor_attention(query, key, value, key_padding_mask=key_padding_mask)
