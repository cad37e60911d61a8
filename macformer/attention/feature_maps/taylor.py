"""Attention by the second-order Taylor polynomial of exp, with exact features."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops import MaclaurinFeatures, maclaurin_attention


class TaylorAttention(nn.Module):
    r"""Attend in linear time with the weights :math:`1 + t + t^2 / 2`.

    .. math:: o_l = \frac{\sum_s K(t_{ls}) v_s}{\sum_s K(t_{ls})}, \qquad
        K(t) = 1 + t + t^2 / 2, \qquad t_{ls} = q_l \cdot k_s / \sqrt{E}

    (Arora et al. 2024, Based, equation 2; Keles et al. 2022). The polynomial is positive
    everywhere, and a sum over the :math:`E (E + 1) / 2` products of two entries and the E entries
    themselves: features without any randomness, the rival of ``rmfa_exp`` at the same kernel. Based
    projects queries and keys to 16 dimensions first, which is ``qkv_dim`` here.
    """

    signs: Tensor
    weights: Tensor
    constant: Tensor

    def __init__(self, *, num_heads: int, head_dim: int):
        super().__init__()
        features = exact_quadratic(head_dim)
        for name in ("signs", "weights", "constant"):
            self.register_buffer(name, getattr(features, name), persistent=False)
        self.widths = features.widths

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the sums over keys, of the constant 1 of the polynomial, too."""
        return (len(self.weights) + 1) * (value_dim + 1)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        features = MaclaurinFeatures(
            signs=self.signs,
            weights=self.weights,
            constant=self.constant,
            linear=0.0,
            widths=self.widths,
        )
        return maclaurin_attention(query, key, value, features, key_padding_mask=key_padding_mask)


def exact_quadratic(head_dim: int) -> MaclaurinFeatures:
    r"""Write :math:`1 + t + t^2 / 2` as a sum of products of one or two entries of q and of k.

    .. math:: t^2 / 2 = \frac{1}{E} \sum_{i < j} q_i q_j k_i k_j
        + \frac{1}{2 E} \sum_i q_i^2 k_i^2
    """
    unit = torch.eye(head_dim)
    first, second = torch.triu_indices(head_dim, head_dim)
    squares = torch.where(first == second, 0.5, 1.0) / head_dim
    return MaclaurinFeatures(
        signs=torch.cat([unit[:, first], unit, unit[:, second]], dim=1)[None],
        weights=torch.cat([squares, torch.full((head_dim,), 1 / math.sqrt(head_dim))]),
        constant=torch.ones(()),
        linear=0.0,
        widths=(len(first) + head_dim, len(first)),
    )
