"""Triton kernels of attention in linear time: features live in registers and never reach memory.

FEATURES and PULL are the two functions of a feature map, parameters what they read; they are told
which head of the batch a tile belongs to, and which of all rows it holds. Padding loads
as zeros in values and in the column of ones, and so leaves every sum. Features, sums, the
denominator and the constant part are float32; OPERAND is the dtype of matrix products.
"""

from typing import no_type_check  # annotations speak to the compiler

import triton
import triton.language as tl


@triton.jit
@no_type_check
def dot(a, b, OPERAND: tl.constexpr):
    """Return a @ b: products of OPERAND, sums of float32, and no TF32."""
    return tl.dot(a.to(OPERAND), b.to(OPERAND), input_precision="ieee")


@triton.jit
@no_type_check
def project(x, w, OPERAND: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Return x @ w, or its transpose, which is ready to be the left side of another product."""
    return dot(tl.trans(w), tl.trans(x), OPERAND) if TRANSPOSED else dot(x, w, OPERAND)


@triton.jit
@no_type_check
def of_features(values, TRANSPOSED: tl.constexpr):
    """Return one value for each feature in the shape that :func:`project` broadcasts with."""
    return values[:, None] if TRANSPOSED else values[None, :]


@triton.jit
@no_type_check
def load_rows(x, n, d, stride, dim, keep):
    """Return rows n, zeros where they are padding: [tokens, dim]."""
    offsets = n.to(tl.int64)[:, None] * stride + d[None, :]
    return tl.load(x + offsets, mask=keep[:, None] & (d < dim)[None, :], other=0.0)


@triton.jit
@no_type_check
def keep_rows(padding, n, length, HAS_PADDING: tl.constexpr):
    """Return which rows exist and are not padding: [tokens]."""
    keep = n < length
    if HAS_PADDING:
        keep = keep & (tl.load(padding + n, mask=keep, other=1) == 0)
    return keep


@triton.jit
@no_type_check
def load_ones(u, n, keep, HAS_U: tl.constexpr):
    """Return the column beside y, ones unless u holds it, zeros at padding: [tokens]."""
    return tl.load(u + n, mask=keep, other=0.0) if HAS_U else keep.to(tl.float32)


@triton.jit
@no_type_check
def load_state(state, v, f, value_dim, num_features):
    """Return the state of some features: [V, features]."""
    mask = (v < value_dim)[:, None] & (f < num_features)[None, :]
    return tl.load(state + v[:, None] * num_features + f[None, :], mask=mask, other=0.0)


@triton.jit
@no_type_check
def state_kernel(
    x, y, u, padding, parameters, state, total,
    heads, length, head_dim, value_dim, num_features, per_split, x_b, x_h, x_n, y_b, y_h, y_n,
    FEATURES: tl.constexpr, OPERAND: tl.constexpr,
    HAS_U: tl.constexpr, HAS_PADDING: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """S = sum_n phi(x_n) [y_n, u_n], and sum_n [y_n, u_n]: a program per (head, slice, group)."""
    bh, split, group = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    b, h = bh // heads, bh % heads
    f, e, v = group * F + tl.arange(0, F), tl.arange(0, E), tl.arange(0, V)
    x, y = x + b * x_b + h * x_h, y + b * y_b + h * y_h
    acc = tl.zeros([F, V], tl.float32)
    acc_u = tl.zeros([F], tl.float32)
    sum_y = tl.zeros([V], tl.float32)
    sum_u = 0.0
    for n0 in range(split * per_split, min((split + 1) * per_split, length), N):
        n = n0 + tl.arange(0, N)
        keep = keep_rows(padding + b * length, n, length, HAS_PADDING)
        xn = load_rows(x, n, e, x_n, head_dim, keep)
        yn = load_rows(y, n, v, y_n, value_dim, keep)
        un = load_ones(u + bh * length, n, keep, HAS_U)
        phi = FEATURES(
            xn, bh * length + n, parameters, bh, h, group * F, head_dim, F, E, OPERAND, True
        )
        acc += dot(phi, yn, OPERAND)
        acc_u += tl.sum(phi * un[None, :], axis=1)
        sum_y += tl.sum(yn.to(tl.float32), axis=0)
        sum_u += tl.sum(un)
    row = bh * tl.num_programs(1) + split
    state += row * (value_dim + 1) * num_features
    total += row * (value_dim + 1)
    alive = f < num_features
    mask = alive[:, None] & (v < value_dim)[None, :]
    tl.store(state + v[None, :] * num_features + f[:, None], acc, mask=mask)
    tl.store(state + value_dim * num_features + f, acc_u, mask=alive)
    if group == 0:
        tl.store(total + v, sum_y, mask=v < value_dim)
        tl.store(total + value_dim, sum_u)


@triton.jit
@no_type_check
def read_kernel(
    x, padding, parameters, state, total, out, z,
    heads, length, head_dim, value_dim, num_features, eps, x_b, x_h, x_n,
    FEATURES: tl.constexpr, OPERAND: tl.constexpr,
    HAS_PADDING: tl.constexpr, DIVIDE: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """[n, z] = phi(x)^T S + total, and o = n / z or n: a program per (head, tile)."""
    bh = tl.program_id(0).to(tl.int64)
    b, h = bh // heads, bh % heads
    n, e, v = tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, E), tl.arange(0, V)
    state += bh * (value_dim + 1) * num_features
    total += bh * (value_dim + 1)
    rows = bh * length + n
    keep = keep_rows(padding + b * length, n, length, HAS_PADDING)
    xn = load_rows(x + b * x_b + h * x_h, n, e, x_n, head_dim, keep)
    acc = tl.zeros([N, V], tl.float32) + tl.load(total + v, mask=v < value_dim, other=0.0)[None, :]
    acc_z = tl.zeros([N], tl.float32) + tl.load(total + value_dim)
    for f0 in range(0, num_features, F):
        f = f0 + tl.arange(0, F)
        phi = FEATURES(xn, rows, parameters, bh, h, f0, head_dim, F, E, OPERAND, False)
        acc += dot(phi, tl.trans(load_state(state, v, f, value_dim, num_features)), OPERAND)
        if DIVIDE:
            s_z = tl.load(state + value_dim * num_features + f, mask=f < num_features, other=0.0)
            acc_z += tl.sum(phi * s_z[None, :], axis=1)
    if DIVIDE:
        tl.store(z + rows, acc_z, mask=keep)
        negative = acc_z.to(tl.int32, bitcast=True) < 0  # the sign bit, which zero has too
        floor = tl.where(negative, -eps, eps)
        acc /= tl.where(tl.abs(acc_z) < eps, floor, acc_z)[:, None]
    acc = tl.where(keep[:, None], acc, 0.0)
    tl.store(
        out + rows[:, None] * value_dim + v[None, :],
        acc.to(out.dtype.element_ty),
        mask=(n < length)[:, None] & (v < value_dim)[None, :],
    )


@triton.jit
@no_type_check
def grad_kernel(
    x, y, u, padding, parameters, state, grad_x,
    heads, length, head_dim, value_dim, num_features, x_b, x_h, x_n, y_b, y_h, y_n,
    PULL: tl.constexpr, OPERAND: tl.constexpr,
    HAS_U: tl.constexpr, HAS_PADDING: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Gradient of [y, u]^T S^T phi(x) at x: a program per (head, tile)."""
    bh = tl.program_id(0).to(tl.int64)
    b, h = bh // heads, bh % heads
    n, e, v = tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, E), tl.arange(0, V)
    state += bh * (value_dim + 1) * num_features
    rows = bh * length + n
    keep = keep_rows(padding + b * length, n, length, HAS_PADDING)
    xn = load_rows(x + b * x_b + h * x_h, n, e, x_n, head_dim, keep)
    yn = load_rows(y + b * y_b + h * y_h, n, v, y_n, value_dim, keep)
    un = load_ones(u + bh * length, n, keep, HAS_U)
    dx = tl.zeros([N, E], tl.float32)
    for f0 in range(0, num_features, F):
        f = f0 + tl.arange(0, F)
        s = load_state(state, v, f, value_dim, num_features)
        s_z = tl.load(state + value_dim * num_features + f, mask=f < num_features, other=0.0)
        grad_phi = dot(yn, s, OPERAND) + un[:, None] * s_z[None, :]
        dx = PULL(dx, xn, grad_phi, rows, parameters, bh, h, f0, head_dim, F, E, OPERAND)
    dx = tl.where(keep[:, None], dx, 0.0).to(grad_x.dtype.element_ty)
    tl.store(
        grad_x + rows[:, None] * head_dim + e[None, :],
        dx,
        mask=(n < length)[:, None] & (e < head_dim)[None, :],
    )
