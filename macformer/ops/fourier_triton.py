r"""Fourier features for the fused kernels, and the gradient at their frequencies.

Features are numbered through: a cosine is a sine a quarter of a turn ahead, so that every one is
:math:`\phi_f(x) = \sin(\omega_f^\top x + b_f)` and its derivative is the same a quarter further on.
"""

from functools import partial
from typing import no_type_check  # annotations speak to the compiler

import triton
import triton.language as tl
from torch import Tensor

from macformer.ops.fused import FusedMap, Gradient, slice_grid, sources
from macformer.ops.fused_tiles import (
    dot,
    keep_rows,
    load_rows,
    load_sources,
    load_state,
    of_features,
    project,
)
from macformer.ops.tiling import contiguous_rows

NUM_STAGES = 2
QUARTER_TURN = tl.constexpr(1.5707963267948966)


@triton.jit
@no_type_check
def _sine(x):
    """Return sin(x) to 1.1e-7 where |x| < 1000.

    A polynomial after reduction by the nearest multiple of pi: the compiler's own sine has a slow
    path for any argument, and its fast one, 5e-7 off, is beyond the interpreter.
    """
    half_turns = tl.floor(x * 0.3183098861837907 + 0.5)
    r = x - half_turns * 3.140625  # exact: pi in two parts, the first one short
    r = r - half_turns * 9.67653589793e-4
    s = r * r
    p = ((2.599749705e-6 * s - 1.980647792e-4) * s + 8.333015401e-3) * s - 1.666665702e-1
    sine = r + r * s * p
    half = 0.5 * half_turns
    return tl.where(half == tl.floor(half), sine, -sine)


@triton.jit
@no_type_check
def _omega(parameters, h, f, head_dim, E: tl.constexpr):
    """Return the frequencies of features f: [E, features]."""
    omega, num_frequencies, stride = parameters
    e, column = tl.arange(0, E), tl.where(f < num_frequencies, f, f - num_frequencies)
    mask = (e < head_dim)[:, None] & (column < num_frequencies)[None, :]
    offsets = e[:, None] * num_frequencies + column[None, :]
    return tl.load(omega + h * stride + offsets, mask=mask, other=0.0)


@triton.jit
@no_type_check
def _angles(
    x, parameters, h, f, head_dim,
    E: tl.constexpr, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """Return x @ omega + b."""
    _, num_frequencies, _ = parameters
    phase = tl.where(f < num_frequencies, 0.0, QUARTER_TURN)
    angles = project(x, _omega(parameters, h, f, head_dim, E), OPERAND, TRANSPOSED)
    return angles + of_features(phase, TRANSPOSED)


@triton.jit
@no_type_check
def _waves(
    x, rows, parameters, bh, h, f0, head_dim,
    DEGREE: tl.constexpr, FULL: tl.constexpr,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """phi = sin(x @ omega + b)."""
    f = f0 + tl.arange(0, F)
    return _sine(_angles(x, parameters, h, f, head_dim, E, OPERAND, TRANSPOSED))


@triton.jit
@no_type_check
def _pull(
    dx, x, grad_phi, rows, parameters, bh, h, f0, head_dim,
    DEGREE: tl.constexpr, FULL: tl.constexpr,
    F: tl.constexpr, E: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Add the gradient at x: (grad_phi * cos(x @ omega + b)) @ omega^T; return it with phi."""
    f = f0 + tl.arange(0, F)
    angles = _angles(x, parameters, h, f, head_dim, E, OPERAND, False)
    omega = _omega(parameters, h, f, head_dim, E)
    dx += dot(grad_phi * _sine(angles + QUARTER_TURN), tl.trans(omega), OPERAND)
    return dx, _sine(angles)


@triton.jit
@no_type_check
def omega_kernel(
    x, y, out, z, padding, parameters, state, grad_omega,
    heads, length, head_dim, value_dim, num_features, per_split, eps, x_b, x_h, x_n, y_b, y_h, y_n,
    OPERAND: tl.constexpr, HAS_OUT: tl.constexpr, HAS_PADDING: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Gradient of sum_n [y_n, u_n]^T S^T phi(x_n) at omega: a program per (head, slice, group)."""
    bh, split, group = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    b, h = bh // heads, bh % heads
    f, e, v = group * F + tl.arange(0, F), tl.arange(0, E), tl.arange(0, V)
    x, y = x + b * x_b + h * x_h, y + b * y_b + h * y_h
    out, z = out + bh * length * value_dim, z + bh * length
    s, s_z = load_state(state + bh * (value_dim + 1) * num_features, v, f, value_dim, num_features)
    acc = tl.zeros([F, E], tl.float32)
    for n0 in range(split * per_split, min((split + 1) * per_split, length), N):
        n = n0 + tl.arange(0, N)
        keep = keep_rows(padding + b * length, n, length, HAS_PADDING)
        xn = load_rows(x, n, e, x_n, head_dim, keep)
        yn, un = load_sources(y, out, z, n, v, y_n, value_dim, keep, eps, HAS_OUT)
        grad_phi = dot(tl.trans(s), tl.trans(yn), OPERAND) + s_z[:, None] * un[None, :]
        angles = _angles(xn, parameters, h, f, head_dim, E, OPERAND, True)
        acc += dot(grad_phi * _sine(angles + QUARTER_TURN), xn, OPERAND)
    row = bh * tl.num_programs(1) + split
    tl.store(
        grad_omega + (row * num_features + f)[:, None] * head_dim + e[None, :],
        acc,
        mask=(f < num_features)[:, None] & (e < head_dim)[None, :],
    )


def waves(omega: Tensor, grad_omega: Tensor | None = None) -> FusedMap:
    """Return sines and cosines, without the factor 1 / sqrt(F).

    Args:
        grad_omega: What receives the gradient at omega.
    """
    omega = omega.contiguous()
    num_frequencies = omega.shape[-1]
    stride = 0 if omega.shape[0] == 1 else omega.stride(0)
    parameters = (omega, num_frequencies, stride)
    return FusedMap(
        num_features=2 * num_frequencies,
        weights=1 / num_frequencies,
        constant=0.0,
        parameters=parameters,
        features=_waves,
        pull=_pull,
        num_stages=NUM_STAGES,
        pull_parameters=None
        if grad_omega is None
        else partial(_pull_omega, parameters, grad_omega),
    )


def _pull_omega(
    parameters: tuple[Tensor | int, ...],
    grad_omega: Tensor,
    x: Tensor,
    y: Tensor,
    padding: Tensor | None,
    state: Tensor,
    gradient: Gradient | None,
) -> None:
    """Add the gradient at omega, first summed for each example, slice and feature."""
    batch, heads, length, head_dim = x.shape
    value_dim, num_features = y.shape[-1], state.shape[-1]
    x, y = contiguous_rows(x), contiguous_rows(y)
    grid, per_split, blocks = slice_grid("omega", x, value_dim, num_features)
    parts = state.new_empty(batch, heads, grid[1], num_features, head_dim)
    out, denominator, eps = sources(x, gradient)
    omega_kernel[grid](
        x, y, out, denominator, x if padding is None else padding, parameters, state, parts,
        heads, length, head_dim, value_dim, num_features, per_split, eps,
        *x.stride()[:3], *y.stride()[:3],
        HAS_OUT=gradient is not None, HAS_PADDING=padding is not None,
        num_stages=NUM_STAGES, **blocks,
    )  # fmt: skip
    sine, cosine = parts.sum((0, 2)).mT.chunk(2, dim=-1)
    gradient = sine + cosine
    grad_omega += gradient.sum(0, keepdim=True) if len(grad_omega) == 1 else gradient
