"""Triton kernels of Maclaurin attention: features live in registers and never reach memory.

Padding loads as zeros, which makes every feature zero: each has degree 1 at least. Products, sums,
the denominator, and the constant part are float32; OPERAND is the dtype of matrix products.
"""

from typing import no_type_check  # annotations speak to the compiler

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _load(x, n, d, stride, dim, keep):
    """Return rows n, zeros where they are padding: [tokens, dim]."""
    offsets = n.to(tl.int64)[:, None] * stride + d[None, :]
    return tl.load(x + offsets, mask=keep[:, None] & (d < dim)[None, :], other=0.0)


@triton.jit
@no_type_check
def _keep(padding, n, length, HAS_PADDING: tl.constexpr):
    """Return which rows exist and are not padding: [tokens]."""
    keep = n < length
    if HAS_PADDING:
        keep = keep & (tl.load(padding + n, mask=keep, other=1) == 0)
    return keep


@triton.jit
@no_type_check
def _signs(signs, table, j, f, e, head_dim, columns, num_levels):
    """Return the sign columns of level j, zeros for features without it: [E, features]."""
    start, width = tl.load(table + j), tl.load(table + num_levels + j)
    offsets = e[:, None] * columns + start + f[None, :]
    return tl.load(signs + offsets, mask=(e < head_dim)[:, None] & (f < width)[None, :], other=0.0)


@triton.jit
@no_type_check
def _project(x, signs, table, j, f, e, head_dim, columns, num_levels):
    """Return x @ signs_j, ones for features without level j: [tokens, features]."""
    w = _signs(signs, table, j, f, e, head_dim, columns, num_levels).to(x.dtype)
    width = tl.load(table + num_levels + j)
    return tl.where((f < width)[None, :], tl.dot(x, w, input_precision="ieee"), 1.0)


@triton.jit
@no_type_check
def _degree(table, f0, num_levels):
    """Return the degree of feature f0, the highest of its group."""
    degree = 0
    for j in range(num_levels):
        degree += (tl.load(table + num_levels + j) > f0).to(tl.int32)
    return degree


@triton.jit
@no_type_check
def state_kernel(
    x, y, u, padding, signs, table, state, total,
    heads, length, head_dim, value_dim, num_features, columns, num_levels, sign_stride, per_split,
    x_b, x_h, x_n, y_b, y_h, y_n,
    OPERAND: tl.constexpr, HAS_U: tl.constexpr, HAS_PADDING: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """S = sum_n phi(x_n) [y_n, u_n], and sum_n [y_n, u_n]: a program per (head, slice, group)."""
    bh, split, group = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    b, h = bh // heads, bh % heads
    f, e, v = group * F + tl.arange(0, F), tl.arange(0, E), tl.arange(0, V)
    x, y, signs = x + b * x_b + h * x_h, y + b * y_b + h * y_h, signs + h * sign_stride
    degree = _degree(table, group * F, num_levels)
    acc = tl.zeros([F, V], tl.float32)
    acc_u = tl.zeros([F], tl.float32)
    sum_y = tl.zeros([V], tl.float32)
    sum_u = 0.0
    for n0 in range(split * per_split, min((split + 1) * per_split, length), N):
        n = n0 + tl.arange(0, N)
        keep = _keep(padding + b * length, n, length, HAS_PADDING)
        xt = tl.trans(_load(x, n, e, x_n, head_dim, keep).to(OPERAND))
        yn = _load(y, n, v, y_n, value_dim, keep)
        un = tl.load(u + bh * length + n, mask=keep, other=0.0) if HAS_U else keep.to(tl.float32)
        phi = tl.full([F, N], 1.0, tl.float32)
        for j in range(degree):
            wt = tl.trans(_signs(signs, table, j, f, e, head_dim, columns, num_levels)).to(OPERAND)
            width = tl.load(table + num_levels + j)
            p = tl.dot(wt, xt, input_precision="ieee")
            phi *= tl.where((f < width)[:, None], p, 1.0)
        acc += tl.dot(phi.to(OPERAND), yn.to(OPERAND), input_precision="ieee")
        acc_u += tl.sum(phi * un[None, :], axis=1)
        sum_y += tl.sum(yn.to(tl.float32), axis=0)
        sum_u += tl.sum(un)
    row = bh * tl.num_programs(1) + split
    state += row * (value_dim + 1) * num_features
    total += row * (value_dim + 1)
    alive = f < num_features
    tl.store(
        state + v[None, :] * num_features + f[:, None],
        acc,
        mask=alive[:, None] & (v < value_dim)[None, :],
    )
    tl.store(state + value_dim * num_features + f, acc_u, mask=alive)
    if group == 0:
        tl.store(total + v, sum_y, mask=v < value_dim)
        tl.store(total + value_dim, sum_u)


@triton.jit
@no_type_check
def out_kernel(
    x, signs, table, state, total, out, z,
    heads, length, head_dim, value_dim, num_features, columns, num_levels, sign_stride, eps,
    x_b, x_h, x_n,
    OPERAND: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """[n, z] = phi(x)^T S + total and o = n / z: a program per (tile, head)."""
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // heads, bh % heads
    n, e, v = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, E), tl.arange(0, V)
    signs, state = signs + h * sign_stride, state + bh * (value_dim + 1) * num_features
    total += bh * (value_dim + 1)
    keep = n < length
    xn = _load(x + b * x_b + h * x_h, n, e, x_n, head_dim, keep).to(OPERAND)
    acc = tl.zeros([N, V], tl.float32) + tl.load(total + v, mask=v < value_dim, other=0.0)[None, :]
    acc_z = tl.zeros([N], tl.float32) + tl.load(total + value_dim)
    for f0 in range(0, num_features, F):
        f = f0 + tl.arange(0, F)
        alive = f < num_features
        phi = tl.full([N, F], 1.0, tl.float32)
        for j in range(_degree(table, f0, num_levels)):
            phi *= _project(xn, signs, table, j, f, e, head_dim, columns, num_levels)
        s = tl.load(
            state + v[None, :] * num_features + f[:, None],
            mask=alive[:, None] & (v < value_dim)[None, :],
            other=0.0,
        )
        s_z = tl.load(state + value_dim * num_features + f, mask=alive, other=0.0)
        acc += tl.dot(phi.to(OPERAND), s.to(OPERAND), input_precision="ieee")
        acc_z += tl.sum(phi * s_z[None, :], axis=1)
    negative = acc_z.to(tl.int32, bitcast=True) < 0  # the sign bit, which zero has too
    guarded = tl.where(tl.abs(acc_z) < eps, tl.where(negative, -eps, eps), acc_z)
    rows = bh * length + n
    tl.store(
        out + rows[:, None] * value_dim + v[None, :],
        acc / guarded[:, None],
        mask=keep[:, None] & (v < value_dim)[None, :],
    )
    tl.store(z + rows, acc_z, mask=keep)


@triton.jit
@no_type_check
def grad_kernel(
    x, y, u, padding, signs, table, state, total, grad_x, grad_y,
    heads, length, head_dim, value_dim, num_features, columns, num_levels, sign_stride,
    x_b, x_h, x_n, y_b, y_h, y_n,
    OPERAND: tl.constexpr, HAS_U: tl.constexpr, HAS_PADDING: tl.constexpr, GRAD_Y: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Gradients of [y, u]^T S^T phi(x) at x, and of the same plus total at y.

    With r = S [y, u], level j of a feature receives r times the product of its other levels. The
    product before j is computed again for each j, which keeps no level in registers. A program per
    (tile, head).
    """
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // heads, bh % heads
    n, e, v = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, E), tl.arange(0, V)
    signs, state = signs + h * sign_stride, state + bh * (value_dim + 1) * num_features
    keep = _keep(padding + b * length, n, length, HAS_PADDING)
    xn = _load(x + b * x_b + h * x_h, n, e, x_n, head_dim, keep).to(OPERAND)
    yn = _load(y + b * y_b + h * y_h, n, v, y_n, value_dim, keep).to(OPERAND)
    un = tl.load(u + bh * length + n, mask=keep, other=0.0) if HAS_U else keep.to(tl.float32)
    dx = tl.zeros([N, E], tl.float32)
    dy = tl.zeros([N, V], tl.float32)
    for f0 in range(0, num_features, F):
        f = f0 + tl.arange(0, F)
        alive = f < num_features
        s = tl.load(
            state + v[:, None] * num_features + f[None, :],
            mask=(v < value_dim)[:, None] & alive[None, :],
            other=0.0,
        ).to(OPERAND)
        s_z = tl.load(state + value_dim * num_features + f, mask=alive, other=0.0)
        r = tl.dot(yn, s, input_precision="ieee") + un[:, None] * s_z[None, :]
        degree = _degree(table, f0, num_levels)
        for back in range(degree):
            j = degree - 1 - back
            before = tl.full([N, F], 1.0, tl.float32)
            for i in range(j):
                before *= _project(xn, signs, table, i, f, e, head_dim, columns, num_levels)
            w = _signs(signs, table, j, f, e, head_dim, columns, num_levels).to(OPERAND)
            dx += tl.dot((r * before).to(OPERAND), tl.trans(w), input_precision="ieee")
            p = _project(xn, signs, table, j, f, e, head_dim, columns, num_levels)
            r *= p
            if GRAD_Y:  # noqa: SIM102 (a constant for the compiler, apart from the run-time test)
                if back == 0:
                    phi = (before * p).to(OPERAND)
                    dy += tl.dot(phi, tl.trans(s), input_precision="ieee")
    offsets = (bh * length + n)[:, None]
    rows = (n < length)[:, None]
    kind = grad_x.dtype.element_ty
    dx = tl.where(keep[:, None], dx, 0.0).to(kind)
    tl.store(grad_x + offsets * head_dim + e[None, :], dx, mask=rows & (e < head_dim)[None, :])
    if GRAD_Y:
        constant = tl.load(total + bh * (value_dim + 1) + v, mask=v < value_dim, other=0.0)
        dy = tl.where(keep[:, None], dy + constant[None, :], 0.0).to(grad_y.dtype.element_ty)
        tl.store(
            grad_y + offsets * value_dim + v[None, :], dy, mask=rows & (v < value_dim)[None, :]
        )
