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

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from macformer.ops.linear import guard_denominator
from macformer.ops.precision import accumulation_dtype, without_autocast
from macformer.ops.tiling import (
    Results,
    Tile,
    key_lengths,
    new_rows,
    on_folded,
    padding_of,
    tiles,
)

Features = tuple[Tensor, ...]
Pull = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class FeatureMap(Protocol):
    """A map from the rows of a tile to features.

    Attributes:
        num_features: The number of features.
        num_columns: The numbers that it computes of each token, which decide the tokens of a tile.
        weights: The weight of each feature, or one for all.
        constant: The constant part of the kernel; nothing is computed for the number 0.
    """

    num_features: int
    num_columns: int
    weights: Tensor | float
    constant: Tensor | float

    def features(self, x: Tensor, tile: Tile) -> Features:
        """Return phi(x), whole or in parts that follow each other: [heads, tokens, X] each."""
        ...

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        r"""Return phi(x), and what takes rows y and a state S to the gradient at x of y S phi(x).

        The latter is called once, after the last use of phi, which it may overwrite.
        """
        ...


@without_autocast
def tiled_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_map: FeatureMap,
    key_map: FeatureMap,
    *,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    """Return the output, its denominator before the guard, and the state of the keys."""

    def forward(query: Tensor, key: Tensor, value: Tensor, **mask: Tensor | None) -> Results:
        sums = sum_over_keys(key, value, key_map, **mask)
        return apply_state(query, query_map, *sums, eps=eps)

    options = {"num_columns": query_map.num_columns, "key_padding_mask": key_padding_mask}
    return on_folded(forward, (query, key, value), **options)


def sum_over_keys(
    key: Tensor, value: Tensor, key_map: FeatureMap, key_padding_mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the state of the keys, and the part of the sums that all queries share, if any."""
    dtype = accumulation_dtype(key)
    columns = value.shape[-1] + 1  # the denominator's is the last
    state = key.new_zeros(*key.shape[:2], columns, key_map.num_features, dtype=dtype)
    total = _new_total(key_map, state)
    rows, lengths = _rows_of_keys(key, value, key_padding_mask)
    for tile, part, (s, t) in tiles(rows, (state, total), lengths, key_map.num_columns):
        k, v = load_keys(*part, dtype)
        _add_products(s, v, key_map.features(k, tile))
        _add_rows(t, v)
    return _weighted(state, total, key_map)


def apply_state(
    query: Tensor, feature_map: FeatureMap, state: Tensor, total: Tensor | None, *, eps: float
) -> Results:
    """Return what :func:`tiled_forward` does, given the sums over keys."""
    batch, heads, query_len, _ = query.shape
    dtype = state.dtype
    out = query.new_empty(batch, heads, query_len, state.shape[-2] - 1, dtype=dtype)
    denominator = query.new_empty(batch, heads, query_len, 1, dtype=dtype)
    rows = query, out, denominator
    lengths, num_columns = [query_len] * batch, feature_map.num_columns
    states = *_of_values(state, total), *_of_ones(state, total)
    for tile, (q, n, z), (s_n, t_n, s_z, t_z) in tiles(rows, states, lengths, num_columns):
        phi = feature_map.features(q.to(dtype), tile)
        _multiply(phi, s_n, t_n, into=n)
        _multiply(phi, s_z, t_z, into=z)
    out.div_(guard_denominator(denominator, eps=eps))
    return out, denominator, state


@without_autocast
def tiled_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_map: FeatureMap,
    key_map: FeatureMap,
    grad_out: Tensor,
    out: Tensor,
    denominator: Tensor,
    state: Tensor,
    *,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    """Return the gradients at query, key and value."""
    maps = {"query_map": query_map, "key_map": key_map}
    tensors = query, key, value, grad_out, out, denominator, state
    options = {"num_columns": query_map.num_columns, "key_padding_mask": key_padding_mask}
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
    query_map: FeatureMap,
    key_map: FeatureMap,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    batch, _, query_len, _ = query.shape
    dtype = state.dtype
    grad_state = torch.zeros_like(state)
    grad_total = _new_total(query_map, state)
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    rows = query, grad_out, out, *guarded_inverse(denominator, eps=eps), grad_query
    states = state, grad_state, grad_total
    lengths, num_columns = [query_len] * batch, query_map.num_columns
    for tile, (q, *gradient, into), (s, grad_s, grad_t) in tiles(
        rows, states, lengths, num_columns
    ):
        grad = grad_numerator(*gradient)
        phi, pull = query_map.pullback(q.to(dtype), tile)
        _add_products(grad_s, grad, phi)
        _add_rows(grad_t, grad)
        into.copy_(pull(grad, s))
    grad_state, grad_total = _weighted(grad_state, grad_total, query_map)

    grad_key = torch.empty_like(key, memory_format=torch.contiguous_format)
    grad_value = torch.empty_like(value, memory_format=torch.contiguous_format)
    if key_padding_mask is not None:  # no tile visits the padding behind an example's last token
        grad_key.zero_()
        grad_value.zero_()
    rows, lengths = _rows_of_keys(key, value, key_padding_mask)
    rows = grad_key, grad_value, *rows
    states = grad_state, *_of_values(grad_state, grad_total)
    for tile, (into_key, into_value, *part), (s, *of_values) in tiles(
        rows, states, lengths, key_map.num_columns
    ):
        k, v = load_keys(*part, dtype)
        phi, pull = key_map.pullback(k, tile)
        grad_v = _multiply(phi, *of_values)
        into_value.copy_(grad_v if part[-1] is None else grad_v.masked_fill_(part[-1], 0))
        into_key.copy_(pull(v, s))
    return grad_query, grad_key, grad_value


def _new_total(feature_map: FeatureMap, state: Tensor) -> Tensor | None:
    """Return zeros in the place of the constant part of sums, if the kernel has one."""
    constant = feature_map.constant  # not read where it is a tensor, which may be on a device
    if not isinstance(constant, Tensor) and constant == 0:
        return None
    return state.new_zeros(*state.shape[:2], 1, state.shape[-2])


def _rows_of_keys(
    key: Tensor, value: Tensor, key_padding_mask: Tensor | None
) -> tuple[tuple[Tensor | None, ...], list[int]]:
    """Return what :func:`load_keys` takes a tile of, and the number of tokens of each example."""
    rows = key, value, padding_of(key_padding_mask, key)
    return rows, key_lengths(key, key_padding_mask)


def _add_rows(total: Tensor | None, rows: Tensor) -> None:
    """Add the sum of rows, [heads, tokens, V + 1], where one is kept."""
    if total is not None:
        total.add_(rows.sum(-2, keepdim=True))


def _weighted(
    state: Tensor, total: Tensor | None, feature_map: FeatureMap
) -> tuple[Tensor, Tensor | None]:
    """Weight sums in place."""
    state.mul_(feature_map.weights)
    return state, None if total is None else total.mul_(feature_map.constant)


def _of_values(state: Tensor, total: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the sums with values, as features meet them: [..., F, V] and [..., 1, V]."""
    return state[..., :-1, :].mT, None if total is None else total[..., :-1]


def _of_ones(state: Tensor, total: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the sums with the column of ones: [..., F, 1] and [..., 1, 1]."""
    return state[..., -1:, :].mT, None if total is None else total[..., -1:]


def _add_products(state: Tensor, rows: Tensor, phi: Features) -> None:
    """Add the products of rows, [heads, tokens, V + 1], with their features to a state."""
    for part, columns in zip(phi, _along(phi, state, dim=-1), strict=True):
        columns.baddbmm_(rows.mT, part)


def _multiply(
    phi: Features, state: Tensor, total: Tensor | None, into: Tensor | None = None
) -> Tensor:
    """Return what features read from a state, [heads, F, V], and the part that they share."""
    (first, rows), *others = zip(phi, _along(phi, state, dim=-2), strict=True)
    if total is None:
        out = torch.bmm(first, rows, out=into)
    else:
        out = torch.baddbmm(total, first, rows, out=into)
    for part, rows in others:
        out.baddbmm_(part, rows)
    return out


def _along(phi: Features, state: Tensor, *, dim: int) -> Sequence[Tensor]:
    """Cut a state into what each part of the features meets."""
    if len(phi) == 1:
        return (state,)
    return state.split_with_sizes([part.shape[-1] for part in phi], dim)


def where_positive(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient at the input of a rectifier, given that at its output and either."""
    return torch.ops.aten.threshold_backward(grad, x, 0.0)


def load_keys(
    key: Tensor, value: Tensor, padding: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return keys, and values with a column of ones; both are zero at padding.

    Args:
        padding: Where padding is: [heads, tokens, 1].
    """
    num_values = value.shape[-1]
    k, v = key.to(dtype), new_rows(value, num_values + 1, dtype)
    values, ones = v.split_with_sizes([num_values, 1], -1)
    values.copy_(value)
    ones.fill_(1)
    if padding is None:
        return k, v
    return k.masked_fill(padding, 0), v.masked_fill_(padding, 0)


def guarded_inverse(denominator: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    r"""Return :math:`1 / z`, and :math:`-1 / z` with zeros where the guard cuts the gradient."""
    inverse = guard_denominator(denominator, eps=eps).reciprocal_()
    return inverse, inverse.neg().masked_fill_(denominator.abs() < eps, 0)


def grad_numerator(grad_out: Tensor, out: Tensor, inverse: Tensor, slope: Tensor) -> Tensor:
    r"""Return the gradient at [n, z] of o = n / z: :math:`[g / z, -g^\top o / z]`."""
    num_values = out.shape[-1]
    grad = new_rows(out, num_values + 1, out.dtype)
    of_values, of_ones = grad.split_with_sizes([num_values, 1], -1)
    torch.mul(grad_out, out, out=of_values)
    torch.sum(of_values, -1, keepdim=True, out=of_ones).mul_(slope)
    torch.mul(grad_out, inverse, out=of_values)
    return grad
