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
from torch.nn.functional import pad

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
        constant: The constant part of the kernel; nothing is computed for the number 0.
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
) -> list[Tensor]:
    """Return the state of the keys, and the part of the sums that all queries share, if any."""
    dtype = accumulation_dtype(key)
    rows = value.shape[-1] + 1  # the denominator's is the last
    sums = [key.new_zeros(*key.shape[:2], rows, key_map.num_features, dtype=dtype)]
    if _has_constant(key_map):
        sums.append(key.new_zeros(*key.shape[:2], 1, rows, dtype=dtype))
    tensors, lengths = _keys(key, value, key_padding_mask)
    for tile, parts, (state, *total) in tiles(tensors, sums, lengths, key_map.num_columns):
        k, v = load_keys(*parts, dtype=dtype)
        state.baddbmm_(v.mT, key_map.features(k, tile))
        _add_rows(v, *total)
    _weight(key_map, *sums)
    return sums


def apply_state(
    query: Tensor, feature_map: FeatureMap, state: Tensor, *total: Tensor, eps: float
) -> Results:
    """Return what :func:`tiled_forward` does, given the sums over keys."""
    batch, heads, query_len, _ = query.shape
    dtype = state.dtype
    out = query.new_empty(batch, heads, query_len, state.shape[-2] - 1, dtype=dtype)
    denominator = query.new_empty(batch, heads, query_len, 1, dtype=dtype)
    of_values = [state[..., :-1, :].mT, *(t[..., :-1] for t in total)]
    of_ones = [state[..., -1:, :].mT, *(t[..., -1:] for t in total)]
    rows, states = (query, out, denominator), (*of_values, *of_ones)
    lengths, num_columns = [query_len] * batch, feature_map.num_columns
    for tile, (q, n, z), sums in tiles(rows, states, lengths, num_columns):
        phi = feature_map.features(q.to(dtype), tile)
        _multiply(phi, *sums[: len(of_values)], into=n)
        _multiply(phi, *sums[len(of_values) :], into=z)
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
    grad_sums = [torch.zeros_like(state)]
    if _has_constant(feature_map):
        grad_sums.append(state.new_zeros(batch, heads, 1, state.shape[-2]))
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    rows = query, grad_out, out, *guarded_inverse(denominator, eps=eps), grad_query
    lengths, num_columns = [query_len] * batch, feature_map.num_columns
    for tile, parts, sums in tiles(rows, (state, *grad_sums), lengths, num_columns):
        (q, *gradient, into), (s, grad_s, *grad_total) = parts, sums
        grad = grad_numerator(*gradient)
        phi, pull = feature_map.pullback(q.to(dtype), tile)
        grad_s.baddbmm_(grad.mT, phi)
        _add_rows(grad, *grad_total)
        into.copy_(pull(grad, s))
    _weight(feature_map, *grad_sums)

    grad_key = torch.empty_like(key, memory_format=torch.contiguous_format)
    grad_value = torch.empty_like(value, memory_format=torch.contiguous_format)
    if key_padding_mask is not None:  # no tile visits the padding behind an example's last token
        grad_key.zero_()
        grad_value.zero_()
    grad_state, *grad_total = grad_sums
    of_values = [grad_state[..., :-1, :].mT, *(t[..., :-1] for t in grad_total)]
    tensors, lengths = _keys(key, value, key_padding_mask)
    rows = grad_key, grad_value, *tensors
    for tile, parts, sums in tiles(rows, (grad_state, *of_values), lengths, key_map.num_columns):
        (into_key, into_value, *loaded), (s, *of_values) = parts, sums
        k, v = load_keys(*loaded, dtype=dtype)
        phi, pull = key_map.pullback(k, tile)
        grad_v = _multiply(phi, *of_values)
        for padding in loaded[2:]:
            grad_v.masked_fill_(padding, 0)
        into_value.copy_(grad_v)
        into_key.copy_(pull(v, s))
    return grad_query, grad_key, grad_value


def _has_constant(feature_map: FeatureMap) -> bool:
    """Ask without reading a tensor, which may be on a device."""
    return isinstance(feature_map.constant, Tensor) or feature_map.constant != 0


def _keys(
    key: Tensor, value: Tensor, key_padding_mask: Tensor | None
) -> tuple[list[Tensor], list[int]]:
    """Return what :func:`load_keys` takes a tile of, and how many tokens of each example."""
    tensors = [key, value, *padding_of(key_padding_mask, key)]
    return tensors, key_lengths(key, key_padding_mask)


def _add_rows(rows: Tensor, *total: Tensor) -> None:
    for t in total:
        t.add_(rows.sum(-2, keepdim=True))


def _weight(feature_map: FeatureMap, state: Tensor, *total: Tensor) -> None:
    state.mul_(feature_map.weights)
    for t in total:
        t.mul_(feature_map.constant)


def _multiply(phi: Tensor, state: Tensor, *total: Tensor, into: Tensor | None = None) -> Tensor:
    """Return the features' product with a state, and the part that all rows share."""
    if not total:
        return torch.bmm(phi, state, out=into)
    return torch.baddbmm(*total, phi, state, out=into)


def where_positive(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient at the input of a rectifier, given that at its output and either."""
    return torch.ops.aten.threshold_backward(grad, x, 0.0)


def load_keys(
    key: Tensor, value: Tensor, *padding: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return keys, and values with a column of ones; both are zero at padding."""
    k, v = key.to(dtype), pad(value.to(dtype), (0, 1), value=1.0)
    for mask in padding:
        k = k.masked_fill(mask, 0)
        v.masked_fill_(mask, 0)
    return k, v


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
