"""Performer: softmax attention by positive orthogonal random features, FAVOR+."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.attention.inputs.guard import bound_dot, bound_inputs
from macformer.attention.pool import draw_from
from macformer.ops import exponential_attention


class Performer(nn.Module):
    r"""Attend in linear time through positive random features of the softmax kernel.

    .. math::
        \phi(x) = \exp(\Omega^\top x' - \|x'\|^2 / 2) / \sqrt F, \quad x' = \sqrt{s}\, x, \qquad
        \mathrm{E}\, \phi(q)^\top \phi(k) = \exp(s\, q \cdot k)

    (Choromanski et al. 2021, Rethinking Attention with Performers, lemma 1 and section 3.)
    Bidirectional. The published code takes the largest exponent of the keys over the whole batch
    and over padding, and adds a small number to each feature; here what shifts the exponents is
    taken of one example's present keys, and cancels. All heads of a layer share their directions.

    Args:
        num_features: Random features per head.
        directions: How they are drawn; see :mod:`macformer.attention.feature_maps.directions`.
        logit_scale: s; None is :math:`1 / \sqrt E`. Skyformer's code scales twice, by :math:`1/E`.
        input_norm: The norm that queries and keys do not exceed; None where nothing bounds them.
        guard: The :math:`|q \cdot k| / \sqrt{E}` to which dot products are held by clipping norms,
            where ``input_norm`` does not keep them below it; None for no clipping.
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
        directions: Callable[..., Tensor],
        logit_scale: float | None,
        input_norm: float | None,
        guard: float | None,
        pool_size: int,
        redraw: bool,
    ):
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features is {num_features}; at least 1 is needed")
        _, self.guard = bound_dot(head_dim=head_dim, input_norm=input_norm, guard=guard)
        self.logit_scale = head_dim**-0.5 if logit_scale is None else logit_scale
        self.redraw = redraw
        draws = [directions(num_features=num_features, head_dim=head_dim) for _ in range(pool_size)]
        self.register_buffer("pool", torch.stack(draws))
        self.register_buffer("pool_index", torch.zeros(1, dtype=torch.long))

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the sums over keys, and the largest exponent of each feature."""
        return self.pool.shape[-1] * (value_dim + 2)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        walk = self.training and self.redraw
        omega = draw_from(self.pool, self.pool_index, walk=walk)[None]
        query, key = bound_inputs(
            query, key, scale=None, guard=self.guard, key_padding_mask=key_padding_mask
        )
        return exponential_attention(
            query, key, value, omega, scale=self.logit_scale, key_padding_mask=key_padding_mask
        )
