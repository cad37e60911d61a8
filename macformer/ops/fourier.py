"""Attention through random Fourier features that are never stored."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.linear import linear_attention
from macformer.ops.passes import Grads, through_maps
from macformer.ops.registration import Size, register_attention
from macformer.ops.sphere import placed, to_sphere
from macformer.ops.tiled import FeatureMap, Features, Pull
from macformer.ops.tiling import HeadMatrices, Memory, Tile, add_of_heads


def fourier_features(
    x: Float[Tensor, "B H N E"], omega: Float[Tensor, "heads E F"]
) -> Float[Tensor, "B H N twoF"]:
    r"""Map to :math:`\phi(x) = [\sin(\Omega^\top x), \cos(\Omega^\top x)] / \sqrt F`."""
    angles = x @ omega
    return torch.cat([angles.sin(), angles.cos()], dim=-1) / math.sqrt(omega.shape[-1])


def fourier_attention_reference(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    """Define :func:`fourier_attention`: the features are stored, autograd does the rest."""
    return linear_attention(
        fourier_features(query, omega),
        fourier_features(key, omega),
        value,
        key_padding_mask=key_padding_mask,
        eps=eps,
    )


class _Waves:
    r"""Sines and cosines, without the factor :math:`1 / \sqrt F` (a FeatureMap)."""

    def __init__(self, omega: Tensor, grad_omega: Tensor | None = None):
        self.grad_omega = grad_omega
        self._matrices = HeadMatrices(omega)
        self.num_features = self.num_columns = 2 * omega.shape[-1]
        self.weights, self.constant = 1 / omega.shape[-1], 0.0
        self._waves: Memory[Sequence[Tensor]] = Memory(Tensor.unbind)
        self._gradient: Memory[Tensor] = Memory(lambda whole: whole)

    def features(self, x: Tensor, tile: Tile) -> Features:
        # each contiguous, since of a view every row would be a call of the library of sines
        sine, cosine = self._waves.take(x, 2, *x.shape[:-1], self.num_features // 2)
        angles = self._matrices.multiply(x, tile, out=cosine)
        torch.sin(angles, out=sine)
        return sine, angles.cos_()

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        sine, cosine = self.features(x, tile)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            of_sine, of_cosine = state.chunk(2, -1)
            grad_angles = torch.bmm(y, of_sine, out=self._gradient.take(x, *sine.shape))
            grad_angles.mul_(cosine)
            grad_cosine = torch.bmm(y, of_cosine, out=cosine)
            grad_angles.addcmul_(grad_cosine, sine, value=-1)
            if self.grad_omega is not None:
                add_of_heads(self.grad_omega, torch.bmm(x.mT, grad_angles), tile)
            return torch.bmm(grad_angles, self._matrices.of(x, tile).mT)

        return (sine, cosine), pull


def _maps(
    _query: Tensor, _key: Tensor, parameters: Sequence[Any], grads: Grads
) -> tuple[FeatureMap, FeatureMap]:
    omega, on_sphere = parameters
    both = placed(_Waves(omega, *grads), on_sphere=on_sphere)
    return both, both


def _kernels(
    _query: Tensor, _key: Tensor, parameters: Sequence[Any], grads: Grads
) -> tuple[Any, Any]:
    from macformer.ops import fourier_triton

    omega, on_sphere = parameters
    assert not on_sphere  # on a GPU what is divided is stored
    both = fourier_triton.waves(omega, *grads)
    return both, both


def _size(query: torch.Size, omega: torch.Size, on_sphere: bool) -> Size:
    return Size(features=2 * omega[-1], columns=omega[-1])


_forward, _backward = through_maps("fourier_attention", _maps, make_kernels=_kernels, num_learnt=1)
_attend = register_attention(
    "fourier_attention",
    "Tensor omega, bool on_sphere",
    forward=_forward,
    backward=_backward,
    size=_size,
    num_learnt=1,
)


def fourier_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    on_sphere: bool = False,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend through random Fourier features (Peng et al. 2021, RFA-Gaussian).

    .. math::
        \phi(x) = [\sin(\Omega^\top x), \cos(\Omega^\top x)] / \sqrt F, \qquad
        o_l = \frac{\phi(q_l)^\top \sum_s \phi(k_s) v_s^\top}{\phi(q_l)^\top \sum_s \phi(k_s)}

    On CUDA, Triton kernels take query, key and value of one dtype below float64 and dims to 128.
    Everything else falls back to tiles of plain torch in float32 or float64.
    The output is rounded once.

    Args:
        omega: One set of frequencies for all heads, or one for each; it receives a gradient.
        on_sphere: Divide queries and keys by their norms first.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero, with its sign.
        out_dtype: Of the output, that of value unless given. What attention adds to the mean of the
            values may be a twentieth of the output, so that bfloat16 rounds it by percents.
    """
    if on_sphere and query.is_cuda:
        query, key, on_sphere = to_sphere(query), to_sphere(key), False
    out, _, _ = _attend(query, key, value, omega, on_sphere, key_padding_mask, eps)
    return out.to(value.dtype if out_dtype is None else out_dtype)
