"""Attention through random Fourier features that are never stored."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from macformer.ops.linear import linear_attention
from macformer.ops.tiled import (
    fits_kernels,
    tiled_backward,
    tiled_flops,
    tiled_forward,
    tiled_shapes,
)


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
        self.omega, self.grad_omega = omega, grad_omega
        self.num_features = 2 * omega.shape[-1]

    def features(self, x: Tensor, heads: slice) -> Tensor:
        angles = torch.bmm(x, _of_heads(self.omega, x, heads))
        phi = x.new_empty(*x.shape[:-1], self.num_features)
        sine, cosine = phi.chunk(2, dim=-1)
        torch.sin(angles, out=sine)
        torch.cos(angles, out=cosine)
        return phi

    def pullback(self, x: Tensor, heads: slice) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        phi = self.features(x, heads)
        sine, cosine = phi.chunk(2, dim=-1)

        def pull(grad_phi: Tensor) -> Tensor:
            grad_sine, grad_cosine = grad_phi.chunk(2, dim=-1)
            grad_angles = grad_sine.mul_(cosine).sub_(grad_cosine.mul_(sine))
            if self.grad_omega is not None:
                grad_omega = torch.bmm(x.mT, grad_angles)
                if len(self.grad_omega) == 1:
                    self.grad_omega += grad_omega.sum(0)
                else:
                    self.grad_omega[heads] += grad_omega
            return torch.bmm(grad_angles, _of_heads(self.omega, x, heads).mT)

        return phi, pull


def _of_heads(omega: Tensor, x: Tensor, heads: slice) -> Tensor:
    omega = omega.to(x.dtype)
    return omega.expand(len(x), -1, -1) if len(omega) == 1 else omega[heads]


@torch.library.custom_op("macformer::fourier_attention", mutates_args=())
def _fourier(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    omega: Tensor,
    key_padding_mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    options = {
        "weights": 1 / omega.shape[-1],
        "constant": 0.0,
        "key_padding_mask": key_padding_mask,
        "eps": eps,
    }
    if fits_kernels(query, key, value):
        from macformer.ops import fourier_triton, fused

        return fused.fused_forward(query, key, value, fourier_triton.waves(omega), **options)
    return tiled_forward(query, key, value, _Waves(omega), **options)


@torch.library.custom_op("macformer::fourier_attention_backward", mutates_args=())
def _fourier_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    omega: Tensor,
    key_padding_mask: Tensor | None,
    eps: float,
    omega_needs_grad: bool,
    grad_out: Tensor,
    out: Tensor,
    denominator: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_omega = torch.zeros_like(omega, dtype=state.dtype)
    destination = grad_omega if omega_needs_grad else None
    grads = grad_out, out, denominator, state
    options = {
        "weights": 1 / omega.shape[-1],
        "constant": 0.0,
        "key_padding_mask": key_padding_mask,
        "eps": eps,
    }
    if fits_kernels(query, key, value):
        from macformer.ops import fourier_triton, fused

        waves = fourier_triton.waves(omega, destination)
        results = fused.fused_backward(query, key, value, waves, *grads, **options)
    else:
        waves = _Waves(omega, destination)
        results = tiled_backward(query, key, value, waves, *grads, **options)
    return *results, grad_omega.to(omega.dtype, copy=True)


@_fourier.register_fake
def _(query, key, value, omega, key_padding_mask, eps):
    return tiled_shapes(query, value, num_features=2 * omega.shape[-1])


@_fourier_backward.register_fake
def _(query, key, value, omega, *_):
    return tuple(
        torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in (query, key, value, omega)
    )


def _setup_context(ctx, inputs, output):
    *tensors, mask, ctx.eps = inputs
    ctx.save_for_backward(*tensors, mask, *output)
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx, grad_out, *_):
    query, key, value, omega, mask, *output = ctx.saved_tensors
    grads = _fourier_backward(
        query, key, value, omega, mask, ctx.eps, ctx.needs_input_grad[3], grad_out, *output
    )
    return *grads, None, None


_fourier.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.macformer.fourier_attention)
def _flops(query, key, value, omega, *_, out_shape=None, **kwargs) -> int:
    return tiled_flops(query, key, value, columns=omega[-1], num_features=2 * omega[-1])


@register_flop_formula(torch.ops.macformer.fourier_attention_backward)
def _backward_flops(query, key, value, omega, *_, out_shape=None, **kwargs) -> int:
    return 2 * _flops(query, key, value, omega)


def fourier_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
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
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero, with its sign.
        out_dtype: Of the output, that of value unless given. What attention adds to the mean of the
            values may be a twentieth of the output, so that bfloat16 rounds it by percents.
    """
    out, _, _ = _fourier(query, key, value, omega, key_padding_mask, eps)
    return out.to(value.dtype if out_dtype is None else out_dtype)
