r"""Attention through positive random features that are never stored.

The exponent of a feature is shifted by something that cancels between numerator and denominator:
at the keys by the peak :math:`c_f = \max_s w_f^\top k_s - \|k_s\|^2 / 2` over one head's present
keys, which moves into the exponent of the queries, and there by the maximum over features. No
exponential exceeds one, and every denominator is at least one. Neither shift has a gradient.
"""

import math
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.dispatch import takes_kernels
from macformer.ops.linear import linear_attention, without_autocast
from macformer.ops.registration import Size, register_attention
from macformer.ops.tiled import (
    Pull,
    Results,
    Tile,
    accumulation_dtype,
    apply_state,
    empty_sums,
    key_lengths,
    load_keys,
    of_heads,
    on_folded,
    padding_of,
    tiled_backward,
    tiles,
)


def exponential_features(
    x: Float[Tensor, "B H N E"], omega: Float[Tensor, "heads E F"], *, scale: float = 1.0
) -> Float[Tensor, "B H N F"]:
    r"""Map to :math:`\phi(x) = \exp(\Omega^\top x' - \|x'\|^2 / 2) / \sqrt F, x' = \sqrt s x`."""
    x = x * math.sqrt(scale)
    return (x @ omega - x.square().sum(-1, keepdim=True) / 2).exp() / omega.shape[-1] ** 0.5


def exponential_attention_reference(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    scale: float = 1.0,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
) -> Float[Tensor, "B H L Ev"]:
    """Define :func:`exponential_attention`, where no exponential leaves the range of its dtype."""
    return linear_attention(
        exponential_features(query, omega, scale=scale),
        exponential_features(key, omega, scale=scale),
        value,
        key_padding_mask=key_padding_mask,
        eps=0.0,
    )


class Queries:
    r""":math:`\exp(w_f^\top q + c_f - \max_g (w_g^\top q + c_g))`, no norm left (a FeatureMap)."""

    weights, constant = 1.0, 0.0

    def __init__(self, omega: Tensor, peaks: Tensor):
        self.omega, self.peaks = omega, peaks
        self.num_features = self.num_columns = omega.shape[-1]

    def features(self, x: Tensor, tile: Tile) -> Tensor:
        exponents = torch.baddbmm(self.peaks[tile[:2]], x, of_heads(self.omega, x, tile))
        return exponents.sub_(exponents.amax(-1, keepdim=True)).exp_()

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Tensor, Pull]:
        phi = self.features(x, tile)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            grad_exponents = torch.bmm(y, state).mul_(phi)
            return torch.bmm(grad_exponents, of_heads(self.omega, x, tile).mT)

        return phi, pull


class Keys:
    r""":math:`\exp(w_f^\top k - s \|k\|^2 / 2 - c_f)`, no more than one even at padding.

    (A FeatureMap.)
    """

    weights, constant = 1.0, 0.0

    def __init__(self, omega: Tensor, peaks: Tensor, scale: float):
        self.omega, self.peaks, self.scale = omega, peaks, scale
        self.num_features = self.num_columns = omega.shape[-1]

    def exponents(self, x: Tensor, tile: Tile) -> Tensor:
        """Return the exponents before they are shifted."""
        half_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return torch.bmm(x, of_heads(self.omega, x, tile)).sub_(half_square.mul_(self.scale / 2))

    def features(self, x: Tensor, tile: Tile) -> Tensor:
        return self.exponents(x, tile).sub_(self.peaks[tile[:2]]).clamp_(max=0).exp_()

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Tensor, Pull]:
        phi = self.features(x, tile)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            grad_exponents = torch.bmm(y, state).mul_(phi)
            grad_x = torch.bmm(grad_exponents, of_heads(self.omega, x, tile).mT)
            total = grad_exponents.sum(-1, keepdim=True)
            return grad_x.addcmul_(total, x, value=-self.scale)

        return phi, pull


@without_autocast
def sum_below_peaks(
    key: Tensor, value: Tensor, keys: Keys, key_padding_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Do what :func:`macformer.ops.tiled.sum_over_keys` does, and set the peaks of ``keys``.

    Each tile may raise the peaks, by which the sums so far then shrink. Without keys they are 0.
    """
    state, total = empty_sums(key, value, keys)
    least = torch.finfo(state.dtype).min
    keys.peaks.fill_(least)
    for tile in tiles(key_lengths(key, key_padding_mask), key.shape[1], keys.num_columns):
        k, v = load_keys(key, value, key_padding_mask, tile, state.dtype)
        exponents, peaks, sums = keys.exponents(k, tile), keys.peaks[tile[:2]], state[tile[:2]]
        if key_padding_mask is not None:
            exponents.masked_fill_(padding_of(key_padding_mask, tile), least)
        raised = torch.maximum(peaks, exponents.amax(-2, keepdim=True))
        sums.mul_(peaks.sub_(raised).exp_()).baddbmm_(v.mT, exponents.sub_(raised).exp_())
        peaks.copy_(raised)
    keys.peaks.masked_fill_(keys.peaks == least, 0)
    return state, total


def _tiles_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    omega: Tensor,
    scale: float,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    peaks = omega.new_empty(*key.shape[:2], 1, omega.shape[-1])
    sums = sum_below_peaks(key, value, Keys(omega, peaks, scale), key_padding_mask)
    out, denominator, state = apply_state(query, Queries(omega, peaks), *sums, eps=eps)
    return out, denominator, torch.cat([state, peaks], dim=-2)


def _tiles_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *results: Tensor,
    omega: Tensor,
    scale: float,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    *results, state = results
    state, peaks = _without_peaks(state)
    queries, keys = Queries(omega, peaks), Keys(omega, peaks, scale)
    options = {"key_map": keys, "key_padding_mask": key_padding_mask, "eps": eps}
    return tiled_backward(query, key, value, queries, *results, state, **options)


def _without_peaks(state: Tensor) -> tuple[Tensor, Tensor]:
    """Split what the forward pass keeps into the sums and the peaks of the keys."""
    return state[..., :-1, :].contiguous(), state[..., -1:, :].contiguous()


@without_autocast
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    omega: Tensor,
    scale: float,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    if not takes_kernels("exponential_attention", query, key, value):
        omega = omega.to(accumulation_dtype(key)) * math.sqrt(scale)
        options = {"num_columns": omega.shape[-1], "key_padding_mask": key_padding_mask}
        op = partial(_tiles_forward, omega=omega, scale=scale, eps=eps)
        return on_folded(op, (query, key, value), **options)
    from macformer.ops import exponential_triton, fused

    assert scale == 1  # on a GPU queries and keys are scaled before
    peaks = exponential_triton.find_peaks(key, omega, key_padding_mask)
    queries, keys = exponential_triton.exponentials(query, omega, peaks)
    options = {"key_map": keys, "key_padding_mask": key_padding_mask, "eps": eps}
    out, denominator, state = fused.fused_forward(query, key, value, queries, **options)
    return out, denominator, torch.cat([state, peaks], dim=-2)


@without_autocast
def _backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    omega: Tensor,
    scale: float,
    key_padding_mask: Tensor | None,
    eps: float,
    _: bool,
    *results: Tensor,
) -> list[Tensor]:
    if not takes_kernels("exponential_attention", query, key, value):
        omega = omega.to(accumulation_dtype(key)) * math.sqrt(scale)
        options = {"num_columns": omega.shape[-1], "key_padding_mask": key_padding_mask}
        op = partial(_tiles_backward, omega=omega, scale=scale, eps=eps)
        return list(on_folded(op, (query, key, value, *results), **options))
    from macformer.ops import exponential_triton, fused

    *results, state = results
    state, peaks = _without_peaks(state)
    queries, keys = exponential_triton.exponentials(query, omega, peaks)
    options = {"key_map": keys, "key_padding_mask": key_padding_mask, "eps": eps}
    return list(fused.fused_backward(query, key, value, queries, *results, state, **options))


def _size(query: torch.Size, omega: torch.Size, scale: float) -> Size:
    return Size(features=omega[-1], columns=omega[-1], extra_rows=1)


_attend = register_attention(
    "exponential_attention",
    "Tensor omega, float scale",
    forward=_forward,
    backward=_backward,
    size=_size,
)


def exponential_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    scale: float = 1.0,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend through positive random features (Choromanski et al. 2021, FAVOR+, lemma 1).

    .. math::
        \phi(x) = \exp(\Omega^\top x' - \|x'\|^2 / 2) / \sqrt F, \quad x' = \sqrt s\, x, \qquad
        o_l = \frac{\phi(q_l)^\top \sum_s \phi(k_s) v_s^\top}{\phi(q_l)^\top \sum_s \phi(k_s)}

    The paper adds a small number to each feature, which mixes uniform attention in; here nothing
    is added, and no norm takes a feature out of its range.

    On CUDA, Triton kernels take query, key and value of one dtype below float64 and dims to 128.
    Everything else falls back to tiles of plain torch in float32 or float64.
    The output is rounded once.

    Args:
        omega: One set of directions for all heads, or one for each; it receives no gradient.
        scale: s, the factor of dot products in the kernel that is estimated.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator of an example without keys away from zero.
        out_dtype: Of the output, that of value unless given.

    Raises:
        ValueError: If omega asks for a gradient.
    """
    if omega.requires_grad:
        raise ValueError("omega requires a gradient, and random directions receive none; detach it")
    if query.is_cuda:  # its kernels know no scale
        query, key, scale = query * math.sqrt(scale), key * math.sqrt(scale), 1.0
    out, _, _ = _attend(query, key, value, omega, scale, key_padding_mask, eps)
    return out.to(value.dtype if out_dtype is None else out_dtype)
