"""Random feature attention (Peng et al. 2021, Random Feature Attention, ICLR)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.attention.pool import draw_from
from macformer.ops import arccos_attention, fourier_attention
from macformer.partials import without_hydra

FEATURES_OF_A_DIRECTION = {fourier_attention: 2, arccos_attention: 1}


class RFA(nn.Module):
    r"""Attend in linear time through random features of normalised queries and keys.

    .. math::
        o_l = \frac{\phi(q_l)^\top \sum_s \phi(k_s) v_s^\top}{\phi(q_l)^\top \sum_s \phi(k_s)},
        \qquad w_f = \sigma \odot \tilde w_f, \quad \tilde w_f \sim \mathcal N(0, I)

    with :math:`\sigma` learnt for each head. In training the :math:`\tilde w` walk through a pool
    drawn once, as in the paper; evaluation uses the pool's first entry. The paper's gate and causal
    recurrence are not used in an encoder. The authors' code scales features by 0.1 and clamps the
    denominator at 1, which cancels unless a denominator is small; here features have their exact
    scale and no clamp.

    Args:
        num_features: Random directions per head. Gaussian features have a sine and a cosine for
            each.
        attend: The op that fixes :math:`\phi`: ``macformer.ops.fourier_attention`` for the Gaussian
            kernel, ``macformer.ops.arccos_attention`` for the arc-cosine kernel.
        pool_size: Draws in the pool.
        redraw: Whether training walks through the pool or stays at its first entry.
    """

    pool: Tensor
    pool_index: Tensor

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        num_features: int,
        attend: Callable[..., Tensor],
        pool_size: int,
        redraw: bool,
    ):
        super().__init__()
        self.attend = without_hydra(attend)
        self.redraw = redraw
        self.sigma = nn.Parameter(torch.ones(num_heads, head_dim, 1))
        self.register_buffer("pool", torch.randn(pool_size, num_heads, head_dim, num_features))
        self.register_buffer("pool_index", torch.zeros(1, dtype=torch.long))

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the sums over keys; of an op that is not known, keys and values."""
        op = getattr(self.attend, "func", self.attend)  # the YAML gives a partial function
        if op not in FEATURES_OF_A_DIRECTION:
            return seq_len * (head_dim + value_dim)
        return FEATURES_OF_A_DIRECTION[op] * self.pool.shape[-1] * (value_dim + 1)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        directions = draw_from(self.pool, self.pool_index, walk=self.training and self.redraw)
        return self.attend(
            query,
            key,
            value,
            self.sigma * directions,
            on_sphere=True,
            key_padding_mask=key_padding_mask,
        )
