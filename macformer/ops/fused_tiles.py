"""What the Triton kernels load, multiply and store: tiles of rows, in registers.

Padding loads as zeros in values and in the column of ones, and so leaves every sum. OPERAND is the
dtype of matrix products; sums are float32.
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
def guard(z, eps):
    """Return z, or eps with its sign where it is smaller than that."""
    negative = z.to(tl.int32, bitcast=True) < 0  # the sign bit, which zero has too
    return tl.where(tl.abs(z) < eps, tl.where(negative, -eps, eps), z)


@triton.jit
@no_type_check
def load_sources(y, out, z, n, v, stride, value_dim, keep, eps, HAS_OUT: tl.constexpr):
    """Return what features are summed with, [y, u]: [tokens, V] and [tokens].

    Values and ones; or, of a gradient g at o = n / z, the gradients [g / z, -g o / z] at [n, z].
    """
    yn = load_rows(y, n, v, stride, value_dim, keep)
    if HAS_OUT:
        yn = yn.to(tl.float32)
        zn = tl.load(z + n, mask=keep, other=1.0)
        inverse = 1.0 / guard(zn, eps)
        slope = tl.where(tl.abs(zn) < eps, 0.0, -inverse)
        un = slope * tl.sum(yn * load_rows(out, n, v, value_dim, value_dim, keep), axis=1)
        yn *= inverse[:, None]
    else:
        un = keep.to(tl.float32)
    return yn, un


@triton.jit
@no_type_check
def load_state(state, v, f, value_dim, num_features):
    """Return the state of some features: [V, features], and that of the denominator: [features]."""
    alive = f < num_features
    s = tl.load(
        state + v[:, None] * num_features + f[None, :],
        mask=(v < value_dim)[:, None] & alive[None, :],
        other=0.0,
    )
    return s, tl.load(state + value_dim * num_features + f, mask=alive, other=0.0)


@triton.jit
@no_type_check
def load_total(total, bh, v, value_dim, N: tl.constexpr, V: tl.constexpr):
    """Return the constant part of a numerator in every row of a tile: [N, V]."""
    row = tl.load(total + bh * (value_dim + 1) + v, mask=v < value_dim, other=0.0)
    return tl.zeros([N, V], tl.float32) + row[None, :]


@triton.jit
@no_type_check
def store_rows(x, rows, d, dim, values, exists):
    """Write rows of contiguous memory in its dtype."""
    mask = exists[:, None] & (d < dim)[None, :]
    tl.store(x + rows[:, None] * dim + d[None, :], values.to(x.dtype.element_ty), mask=mask)
