"""Skyformer (Chen et al. 2021, Remodel Self-Attention with Gaussian Kernel and Nystrom Method)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.attention.pool import draw_from
from macformer.ops import gaussian_attention, gaussian_kernel, iterated_solve
from macformer.ops.precision import accumulation_dtype
from macformer.ops.present import locate, mark_present, query_padding, take


class Skyformer(nn.Module):
    r"""Approximate Gaussian attention through landmarks among queries and keys.

    .. math::
        o = G(q, X) \, D^{-1/2} (D^{-1/2} M D^{-1/2})^{-1} D^{-1/2} \, G(X, k) \, v, \qquad
        M = G(X, X) + \rho I, \quad D = \operatorname{diag}(M 1)

    with the kernel G of :class:`macformer.attention.GaussianAttention`, X holding as many queries
    as keys, and the inverse of :func:`macformer.ops.iterated_solve`. The products with G are
    themselves Gaussian attention, so that no L x m matrix is stored.

    Landmarks are drawn among the present tokens, without replacement where there are enough of
    them. In training the draws walk through a pool; evaluation uses the pool's first entry, where
    the authors' code draws anew. Other deviations from it: the scale follows head_dim, which is 32
    there, each inverse starts from its own matrix instead of the batch's largest, and there is no
    accumulation of several draws, which it sets to one.

    Args:
        num_landmarks: Rows of X; half of them are queries.
        ridge: :math:`\rho`.
        num_steps: Steps of the inverse.
        pool_size: Draws in the pool.
        redraw: Whether training walks through the pool or stays at its first entry.

    Raises:
        ValueError: If num_landmarks is odd.
    """

    joint_queries = True
    pool: Tensor
    pool_index: Tensor

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        num_landmarks: int,
        ridge: float,
        num_steps: int,
        pool_size: int,
        redraw: bool,
    ):
        super().__init__()
        if num_landmarks % 2:
            raise ValueError(f"num_landmarks {num_landmarks} is odd; half of them are queries")
        self.ridge = ridge
        self.num_steps = num_steps
        self.redraw = redraw
        fractions = torch.rand(pool_size, 2, num_landmarks // 2)
        self.register_buffer("pool", fractions.sort(-1).values)
        self.register_buffer("pool_index", torch.zeros(1, dtype=torch.long))

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the landmarks and the values solved for them; those that recur count once."""
        return min(self.pool[0].numel(), 2 * seq_len) * (head_dim + value_dim)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        q, k, v = blank_padding(query, key, value, key_padding_mask)
        queries = query_padding(q, k, key_padding_mask)
        walk = self.training and self.redraw
        of_queries, of_keys = draw_from(self.pool, self.pool_index, walk=walk)
        x = torch.cat([_draw(q, of_queries, queries), _draw(k, of_keys, key_padding_mask)], dim=2)
        near = gaussian_attention(x, k, v, key_padding_mask=key_padding_mask)
        return gaussian_attention(q, x, self._solve(x, near)).to(v.dtype)

    def _solve(
        self, x: Float[Tensor, "B H M E"], values: Float[Tensor, "B H M Ev"]
    ) -> Float[Tensor, "B H M Ev"]:
        """Multiply by the regularised inverse of the landmarks' kernel matrix."""
        with torch.autocast(x.device.type, enabled=False):
            matrix = gaussian_kernel(x, x) + self.ridge * torch.eye(
                x.shape[2], dtype=x.dtype, device=x.device
            )
            root = matrix.sum(-1, keepdim=True).rsqrt()
            whitened = root * matrix * root.mT
            return root * iterated_solve(whitened, root * values, num_steps=self.num_steps)


def landmark_ranks(fractions: Float[Tensor, "R"], count: Int[Tensor, "B"]) -> Int[Tensor, "B R"]:
    """Turn ascending fractions into ranks of tokens, all different where there are R or more.

    A rank among those that R - 1 tokens leave over, plus one more for every landmark before it:
    where there are just R tokens each is a landmark, where there are fewer they take turns.
    """
    num_ranks = len(fractions)
    spare = (count - num_ranks + 1).clamp(min=1)[:, None]
    ranks = (fractions * spare).long() + torch.arange(num_ranks, device=count.device)
    return ranks % count.clamp(min=1)[:, None]


def _draw(
    tokens: Float[Tensor, "B H N E"],
    fractions: Float[Tensor, "R"],
    padding_mask: Bool[Tensor, "B N"] | None,
) -> Float[Tensor, "B H R E"]:
    """Take the tokens at these fractions of the present ones, in float32 at least."""
    present = mark_present(tokens, padding_mask)
    ranks = landmark_ranks(fractions, present.sum(1))
    rows = take(tokens, locate(present, ranks))
    return rows.to(accumulation_dtype(rows))
