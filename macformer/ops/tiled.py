r"""Attention in linear time whose features are computed tile by tile and never stored.

With features :math:`\phi`, their weights w, and a constant c,

.. math::
    \hat K(q, k) = c + \sum_f w_f \phi_f(q) \phi_f(k), \qquad
    o_l = \frac{\sum_s \hat K(q_l, k_s) v_s}{\sum_s \hat K(q_l, k_s)} = \frac{n_l}{z_l}.

Values carry a column of ones, so that z is one more column of n. Forward sums a state over the
keys and reads it at the queries; backward computes the features again, sums a second state over the
queries, and reads that at the keys. A tile is small enough to stay in one core's cache from
projection to product.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from macformer.ops.linear import accumulation_dtype, guard_denominator, without_autocast
from macformer.ops.tiling import Results, Tile, key_lengths, on_folded, padding_of, tiles

Pull = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class FeatureMap(Protocol):
    """A map from the rows of a tile to features.

    Attributes:
        num_features: The number of features.
        num_columns: The numbers that it computes of each token, which decide the tokens of a tile.
        weights: The weight of each feature, or one for all.
        constant: The constant part of the kernel.
    """

    num_features: int
    num_columns: int
    weights: Tensor | float
    constant: Tensor | float

    def features(self, x: Tensor, tile: Tile) -> Tensor:
        """Return phi(x)."""
        ...

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Tensor, Pull]:
        r"""Return phi(x), and what takes rows y and a state S to the gradient at x of y S phi(x).

        The latter is called once, after the last use of phi, which it may overwrite.
        """
        ...


@without_autocast
def tiled_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    feature_map: FeatureMap,
    *,
    key_map: FeatureMap | None = None,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    """Return the output, its denominator before the guard, and the state of the keys.

    Args:
        key_map: That of the keys, where it is not that of the queries.
    """

    def forward(query: Tensor, key: Tensor, value: Tensor, **mask: Tensor | None) -> Results:
        sums = sum_over_keys(key, value, key_map or feature_map, **mask)
        return apply_state(query, feature_map, *sums, eps=eps)

    options = {"num_columns": feature_map.num_columns, "key_padding_mask": key_padding_mask}
    return on_folded(forward, (query, key, value), **options)


def sum_over_keys(
    key: Tensor, value: Tensor, key_map: FeatureMap, key_padding_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the state of the keys, and the part of the sums that is the same for all queries."""
    dtype = accumulation_dtype(key)
    rows = value.shape[-1] + 1  # the denominator's is the last
    state = key.new_zeros(*key.shape[:2], rows, key_map.num_features, dtype=dtype)
    total = key.new_zeros(*key.shape[:2], 1, rows, dtype=dtype)
    for tile in tiles(key_lengths(key, key_padding_mask), key.shape[1], key_map.num_columns):
        k, v = load_keys(key, value, key_padding_mask, tile, state.dtype)
        b, h, _ = tile
        state[b, h].baddbmm_(v.mT, key_map.features(k, tile))
        total[b, h] += v.sum(-2, keepdim=True)
    return state.mul_(key_map.weights), total.mul_(key_map.constant)


def apply_state(
    query: Tensor, feature_map: FeatureMap, state: Tensor, total: Tensor, *, eps: float
) -> Results:
    """Return what :func:`tiled_forward` does, given the sums over keys."""
    batch, heads, query_len, _ = query.shape
    dtype = state.dtype
    out = query.new_empty(batch, heads, query_len, state.shape[-2] - 1, dtype=dtype)
    denominator = query.new_empty(batch, heads, query_len, 1, dtype=dtype)
    for tile in tiles([query_len] * batch, heads, feature_map.num_columns):
        b, h, _ = tile
        phi = feature_map.features(query[tile].to(dtype), tile)
        denominator[tile] = torch.baddbmm(total[b, h, :, -1:], phi, state[b, h, -1:].mT)
        torch.baddbmm(total[b, h, :, :-1], phi, state[b, h, :-1].mT, out=out[tile])
    out.div_(guard_denominator(denominator, eps=eps))
    return out, denominator, state


@without_autocast
def tiled_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    feature_map: FeatureMap,
    grad_out: Tensor,
    out: Tensor,
    denominator: Tensor,
    state: Tensor,
    *,
    key_map: FeatureMap | None = None,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    """Return the gradients at query, key and value."""
    maps = {"feature_map": feature_map, "key_map": key_map or feature_map}
    tensors = query, key, value, grad_out, out, denominator, state
    options = {"num_columns": feature_map.num_columns, "key_padding_mask": key_padding_mask}
    return on_folded(partial(_gradients, **maps, eps=eps), tensors, **options)


def _gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_out: Tensor,
    out: Tensor,
    denominator: Tensor,
    state: Tensor,
    *,
    feature_map: FeatureMap,
    key_map: FeatureMap,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    batch, heads, query_len, _ = query.shape
    dtype = state.dtype
    grad_state = torch.zeros_like(state)
    grad_total = state.new_zeros(batch, heads, 1, state.shape[-2])
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    inverse, slope = guarded_inverse(denominator, eps=eps)
    for tile in tiles([query_len] * batch, heads, feature_map.num_columns):
        b, h, _ = tile
        grad = grad_numerator(grad_out[tile], out[tile], inverse[tile], slope[tile])
        phi, pull = feature_map.pullback(query[tile].to(dtype), tile)
        grad_state[b, h].baddbmm_(grad.mT, phi)
        grad_total[b, h] += grad.sum(-2, keepdim=True)
        grad_query[tile] = pull(grad, state[b, h])
    grad_state.mul_(feature_map.weights)
    grad_total.mul_(feature_map.constant)

    grad_key = torch.empty_like(key, memory_format=torch.contiguous_format)
    grad_value = torch.empty_like(value, memory_format=torch.contiguous_format)
    if key_padding_mask is not None:  # no tile visits the padding behind an example's last token
        grad_key.zero_()
        grad_value.zero_()
    for tile in tiles(key_lengths(key, key_padding_mask), heads, key_map.num_columns):
        b, h, _ = tile
        k, v = load_keys(key, value, key_padding_mask, tile, dtype)
        phi, pull = key_map.pullback(k, tile)
        grad_v = torch.baddbmm(grad_total[b, h, :, :-1], phi, grad_state[b, h, :-1].mT)
        if key_padding_mask is not None:
            grad_v.masked_fill_(padding_of(key_padding_mask, tile), 0)
        grad_value[tile] = grad_v
        grad_key[tile] = pull(v, grad_state[b, h])
    return grad_query, grad_key, grad_value


def where_positive(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient at the input of a rectifier, given that at its output and either."""
    return torch.ops.aten.threshold_backward(grad, x, 0.0)


def load_keys(
    key: Tensor, value: Tensor, key_padding_mask: Tensor | None, tile: Tile, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return keys, and values with a column of ones; both are zero at padding."""
    k, v = key[tile].to(dtype), value[tile]
    extended = v.new_ones(*v.shape[:-1], v.shape[-1] + 1, dtype=dtype)
    extended[..., :-1] = v
    if key_padding_mask is not None:
        padding = padding_of(key_padding_mask, tile)
        k = k.masked_fill(padding, 0)
        extended.masked_fill_(padding, 0)
    return k, extended


def guarded_inverse(denominator: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    r"""Return :math:`1 / z`, and :math:`-1 / z` with zeros where the guard cuts the gradient."""
    inverse = guard_denominator(denominator, eps=eps).reciprocal_()
    return inverse, inverse.neg().masked_fill_(denominator.abs() < eps, 0)


def grad_numerator(grad_out: Tensor, out: Tensor, inverse: Tensor, slope: Tensor) -> Tensor:
    r"""Return the gradient at [n, z] of o = n / z: :math:`[g / z, -g^\top o / z]`."""
    grad = inverse.new_empty(*out.shape[:-1], out.shape[-1] + 1)
    torch.mul(grad_out, inverse, out=grad[..., :-1])
    torch.sum(grad_out * out, -1, keepdim=True, out=grad[..., -1:]).mul_(slope)
    return grad
