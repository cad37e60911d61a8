"""Attention through features of single entries, tile by tile on a CPU.

On a GPU, where so many small products would wait for each other, features are stored.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.linear import linear_attention
from macformer.ops.passes import Grads, MakeMaps, through_maps
from macformer.ops.precision import accumulation_dtype, without_autocast
from macformer.ops.registration import Size, register_attention
from macformer.ops.tiled import FeatureMap, Features, Pull, where_positive
from macformer.ops.tiling import Tile


@without_autocast
def elu_features(x: Float[Tensor, "B H N E"]) -> Float[Tensor, "B H N E"]:
    r"""Map to :math:`\mathrm{elu}(x) + 1`: 1 + x above zero, exp(x) below."""
    x = x.to(accumulation_dtype(x))
    return x.clamp(max=0).exp() + x.relu()


@without_autocast
def relu_features(x: Float[Tensor, "B H N E"], *, shift: float) -> Float[Tensor, "B H N E"]:
    r"""Map to :math:`\mathrm{relu}(x) + \epsilon`."""
    return x.to(accumulation_dtype(x)).relu() + shift


@without_autocast
def cosine_features(x: Float[Tensor, "B H N E"], *, horizon: int) -> Float[Tensor, "B H N twoE"]:
    r"""Map to :math:`\mathrm{relu}(x_n) \otimes [\cos, \sin](\pi n / 2 M)`, M being the horizon."""
    x = x.to(accumulation_dtype(x)).relu()
    cosine, sine = waves(x.shape[-2], horizon, x)
    return torch.cat([x * cosine, x * sine], dim=-1)


def waves(length: int, horizon: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine and the sine of each position, which fall and rise up to the horizon."""
    position = torch.arange(length, device=x.device, dtype=accumulation_dtype(x))
    angle = position[:, None] * (math.pi / (2 * horizon))
    return angle.cos(), angle.sin()


class _Elu:
    r""":func:`elu_features`, whose slope is the smaller of them and one (a FeatureMap)."""

    weights, constant = 1.0, 0.0

    def __init__(self, query: Tensor, _: Tensor):
        self.num_features = self.num_columns = query.shape[-1]

    def features(self, x: Tensor, tile: Tile) -> Features:
        return (x.clamp(max=0).exp_().add_(x.relu()),)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        (phi,) = self.features(x, tile)
        return (phi,), lambda y, state: torch.bmm(y, state).mul_(phi.clamp_(max=1))


class _Relu:
    """:func:`relu_features` (a FeatureMap)."""

    weights, constant = 1.0, 0.0

    def __init__(self, query: Tensor, _: Tensor, shift: float):
        self.num_features = self.num_columns = query.shape[-1]
        self.shift = shift

    def features(self, x: Tensor, tile: Tile) -> Features:
        return (x.relu().add_(self.shift),)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        return self.features(x, tile), lambda y, state: where_positive(torch.bmm(y, state), x)


class _Cosine:
    """:func:`cosine_features` (a FeatureMap)."""

    weights, constant = 1.0, 0.0

    def __init__(self, query: Tensor, key: Tensor, horizon: int):
        self.num_features = self.num_columns = 2 * query.shape[-1]
        self.waves = waves(max(query.shape[-2], key.shape[-2]), horizon, query)

    def features(self, x: Tensor, tile: Tile) -> Features:
        cosine, sine = (wave[tile[2]] for wave in self.waves)
        rectified = x.relu()
        return rectified * cosine, rectified * sine

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        def pull(y: Tensor, state: Tensor) -> Tensor:
            cosine, sine = (wave[tile[2]] for wave in self.waves)
            grad_cosine, grad_sine = (torch.bmm(y, columns) for columns in state.chunk(2, -1))
            return where_positive((grad_cosine * cosine).addcmul_(grad_sine, sine), x)

        return self.features(x, tile), pull


def _entries(query: torch.Size, *_: object) -> Size:
    return Size(features=query[-1], columns=0)


def _pairs(query: torch.Size, *_: object) -> Size:
    return Size(features=2 * query[-1], columns=0)


def _maps(make_map: Callable[..., FeatureMap]) -> MakeMaps:
    """Return how the map of queries and keys, which is one, is made of them and parameters."""

    def maps(
        query: Tensor, key: Tensor, parameters: Sequence[Any], _grads: Grads
    ) -> tuple[FeatureMap, FeatureMap]:
        both = make_map(query, key, *parameters)
        return both, both

    return maps


def _register(name: str, parameters: str, make_map: Callable[..., FeatureMap], size: Any) -> Any:
    forward, backward = through_maps(name, _maps(make_map))
    return register_attention(name, parameters, forward=forward, backward=backward, size=size)


_attend_elu = _register("elu_attention", "", _Elu, _entries)
_attend_relu = _register("relu_attention", "float shift", _Relu, _entries)
_attend_cosine = _register("cosine_attention", "int horizon", _Cosine, _pairs)


def elu_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend through the features :math:`\mathrm{elu}(x) + 1` (Katharopoulos et al. 2020).

    Args:
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero.
    """
    options = {"key_padding_mask": key_padding_mask, "eps": eps}
    if query.is_cuda:
        return linear_attention(elu_features(query), elu_features(key), value, **options)
    return _attend_elu(query, key, value, key_padding_mask, eps)[0].to(value.dtype)


def relu_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    *,
    shift: float,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend through the features :math:`\mathrm{relu}(x) + \epsilon`.

    Args:
        shift: :math:`\epsilon`.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero.
    """
    options = {"key_padding_mask": key_padding_mask, "eps": eps}
    if query.is_cuda:
        phi_q, phi_k = (relu_features(x, shift=shift) for x in (query, key))
        return linear_attention(phi_q, phi_k, value, **options)
    return _attend_relu(query, key, value, shift, key_padding_mask, eps)[0].to(value.dtype)


def cosine_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    *,
    horizon: int,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend by rectified dot products that fall off with the distance (Qin et al. 2022).

    .. math:: w_{ls} = \mathrm{relu}(q_l)^\top \mathrm{relu}(k_s) \cos\frac{\pi (l - s)}{2 M}

    Args:
        horizon: M, no less than any length, so that no weight is negative.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero.
    """
    options = {"key_padding_mask": key_padding_mask, "eps": eps}
    if query.is_cuda:
        phi_q, phi_k = (cosine_features(x, horizon=horizon) for x in (query, key))
        return linear_attention(phi_q, phi_k, value, **options)
    return _attend_cosine(query, key, value, horizon, key_padding_mask, eps)[0].to(value.dtype)
