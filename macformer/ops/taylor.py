"""Attention by the second-order Taylor polynomial of exp, through exact features."""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.maclaurin import MaclaurinFeatures
from macformer.ops.passes import Grads, through_maps
from macformer.ops.precision import accumulation_dtype
from macformer.ops.registration import Size, register_attention
from macformer.ops.tiled import FeatureMap, Features, Pull
from macformer.ops.tiling import Memory, Tile


def taylor_attention_reference(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
) -> Float[Tensor, "B H L Ev"]:
    """Define :func:`taylor_attention` by the matrix of its weights."""
    t = query @ key.mT / math.sqrt(query.shape[-1])
    weights = 1 + t + t.square() / 2
    if key_padding_mask is not None:
        weights = weights.masked_fill(key_padding_mask[:, None, None, :], 0)
    return weights @ value / weights.sum(-1, keepdim=True)


class Quadratic:
    r"""Products of two entries, and the entries (a FeatureMap).

    Each entry meets the one that follows d places later, around the end, for d up to :math:`E / 2`.
    So the features of one distance are the product of two blocks of rows of the transposed tile.
    """

    constant = 1.0

    def __init__(self, query: Tensor):
        self.dim = query.shape[-1]
        self.weights = quadratic_weights(self.dim, query)
        self.num_features = self.num_columns = len(self.weights)
        # of features, and after their last use of the gradient at them
        self._memory = Memory(partial(_cut, dim=self.dim))

    def features(self, x: Tensor, tile: Tile) -> Features:
        return (self._features(_around(x)).mT,)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        rows = _around(x)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            grad_phi, grad_pairs, grad_linear = self._take(rows)
            torch.bmm(state.mT, y.mT, out=grad_phi)
            grad = torch.zeros_like(rows)
            own, grad_own = rows[:, : self.dim], grad[:, : self.dim].copy_(grad_linear)
            partners, grad_partners = (self._partners(t).unbind(1) for t in (rows, grad))
            for grad_pair, partner, grad_partner in zip(
                grad_pairs.unbind(1), partners, grad_partners, strict=True
            ):
                grad_own.addcmul_(grad_pair, partner)
                grad_partner.addcmul_(grad_pair, own)
            grad[:, : self.dim // 2] += grad[:, self.dim :]
            return grad_own.mT

        return (self._features(rows).mT,), pull

    def _features(self, rows: Tensor) -> Tensor:
        """Return features in rows, given entries in rows."""
        phi, pairs, linear = self._take(rows)
        own = rows[:, : self.dim]
        torch.mul(self._partners(rows), own.unsqueeze(1), out=pairs)
        linear.copy_(own)
        return phi

    def _take(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._memory.take(rows, len(rows), self.num_features, rows.shape[-1])

    def _partners(self, rows: Tensor) -> Tensor:
        """Return, for each distance, the rows from there on: as many as there are entries."""
        return rows.unfold(1, self.dim, 1).mT


def _cut(phi: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut features in rows into pairs, by distance and entry, and the entries."""
    return phi, phi[:, :-dim].unflatten(1, (-1, dim)), phi[:, -dim:]


Dim = TypeVar("Dim", int, torch.SymInt)  # SymInt while a graph of any size is traced


def num_quadratic_features(head_dim: Dim) -> Dim:
    """Count as many pairs as entries for each distance from 0 to half the ring, and the entries."""
    return head_dim * (head_dim // 2 + 1) + head_dim


def quadratic_weights(head_dim: int, like: Tensor) -> Tensor:
    r"""Return :math:`1 / E` for each pair, half of it where a pair is met twice."""
    pairs = like.new_full(
        (head_dim // 2 + 1, head_dim), 1 / head_dim, dtype=accumulation_dtype(like)
    )
    pairs[0] /= 2
    if head_dim % 2 == 0:
        pairs[-1] /= 2
    return torch.cat([pairs.flatten(), pairs.new_full((head_dim,), 1 / math.sqrt(head_dim))])


def _around(x: Tensor) -> Tensor:
    """Return entries in rows, the first half once more below: they follow around the end."""
    rows = x.mT
    return torch.cat([rows, rows[:, : x.shape[-1] // 2]], dim=1)


@lru_cache
def as_products(head_dim: int, device: torch.device) -> MaclaurinFeatures:
    """Write the same features as products of projections on unit vectors, which kernels compute."""
    unit = torch.eye(head_dim, device=device)
    first = torch.arange(head_dim, device=device).repeat(head_dim // 2 + 1)
    distance = torch.arange(head_dim // 2 + 1, device=device).repeat_interleave(head_dim)
    return MaclaurinFeatures(
        signs=torch.cat([unit[:, first], unit, unit[:, (first + distance) % head_dim]], dim=1)[
            None
        ],
        weights=quadratic_weights(head_dim, unit),
        constant=unit.new_ones(()),
        linear=0.0,
        widths=(len(first) + head_dim, len(first)),
    )


def _maps(
    query: Tensor, _key: Tensor, _parameters: Sequence[Any], _grads: Grads
) -> tuple[FeatureMap, FeatureMap]:
    both = Quadratic(query)
    return both, both


def _kernels(
    query: Tensor, _key: Tensor, _parameters: Sequence[Any], _grads: Grads
) -> tuple[Any, Any]:
    from macformer.ops import maclaurin_triton

    features = as_products(query.shape[-1], query.device)
    both = maclaurin_triton.products(
        features.signs, features.widths, features.weights, features.constant
    )
    return both, both


def _size(query: torch.Size) -> Size:
    """Count no projections: those of the kernels are on unit vectors, which is gathering."""
    return Size(features=num_quadratic_features(query[-1]), columns=0)


_forward, _backward = through_maps("taylor_attention", _maps, make_kernels=_kernels)
_attend = register_attention(
    "taylor_attention", "", forward=_forward, backward=_backward, size=_size
)


def taylor_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend in linear time with the weights :math:`1 + t + t^2 / 2`, t being softmax's logits.

    .. math:: \frac{t^2}{2} = \frac{1}{E} \sum_{i < j} q_i q_j k_i k_j
        + \frac{1}{2 E} \sum_i q_i^2 k_i^2

    On CUDA, the Triton kernels of :func:`maclaurin_attention` take query, key and value of one
    dtype below float64 and dims to 128. Everything else falls back to tiles of plain torch in
    float32 or float64.

    Args:
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator of an example without keys away from zero.
    """
    return _attend(query, key, value, key_padding_mask, eps)[0].to(value.dtype)
