"""Triton kernels of attention in linear time: features live in registers and never reach memory.

FEATURES and PULL are the two functions of a feature map, parameters what they read; they are told
which head of the batch a tile belongs to, and which of all rows it holds. RUNS says which groups of
features, of F each, are of one make: the code of each run is compiled by itself. Padding loads
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
def store_rows(x, rows, d, dim, values, exists):
    """Write rows of contiguous memory in its dtype."""
    mask = exists[:, None] & (d < dim)[None, :]
    tl.store(x + rows[:, None] * dim + d[None, :], values.to(x.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def state_kernel(
    x, y, out, z, padding, parameters, state, total,
    heads, length, head_dim, value_dim, num_features, per_split, eps, x_b, x_h, x_n, y_b, y_h, y_n,
    FEATURES: tl.constexpr, RUNS: tl.constexpr, NUM_RUNS: tl.constexpr, OPERAND: tl.constexpr,
    HAS_OUT: tl.constexpr, HAS_PADDING: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """S = sum_n phi(x_n) [y_n, u_n], and sum_n [y_n, u_n]: a program per (head, slice, group)."""
    bh, split, group = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    b, h = bh // heads, bh % heads
    f, e, v = group * F + tl.arange(0, F), tl.arange(0, E), tl.arange(0, V)
    x, y, padding = x + b * x_b + h * x_h, y + b * y_b + h * y_h, padding + b * length
    out, z = out + bh * length * value_dim, z + bh * length
    acc = tl.zeros([F, V], tl.float32)
    acc_u = tl.zeros([F, N], tl.float32)
    sum_y = tl.zeros([N, V], tl.float32)
    sum_u = tl.zeros([N], tl.float32)
    for i in tl.static_range(NUM_RUNS):
        if (group >= RUNS[i][0]) & (group < RUNS[i][1]):
            for n0 in range(split * per_split, min((split + 1) * per_split, length), N):
                n = n0 + tl.arange(0, N)
                keep = keep_rows(padding, n, length, HAS_PADDING)
                xn = load_rows(x, n, e, x_n, head_dim, keep)
                yn, un = load_sources(y, out, z, n, v, y_n, value_dim, keep, eps, HAS_OUT)
                phi = FEATURES(
                    xn, bh * length + n, parameters, bh, h, group * F, head_dim,
                    RUNS[i][2], RUNS[i][3], F, E, OPERAND, True,
                )  # fmt: skip
                acc += dot(phi, yn, OPERAND)
                acc_u += phi * un[None, :]
                if i == 0:
                    sum_y += yn
                    sum_u += un
    row = bh * tl.num_programs(1) + split
    state += row * (value_dim + 1) * num_features
    total += row * (value_dim + 1)
    alive = f < num_features
    mask = alive[:, None] & (v < value_dim)[None, :]
    tl.store(state + v[None, :] * num_features + f[:, None], acc, mask=mask)
    tl.store(state + value_dim * num_features + f, tl.sum(acc_u, axis=1), mask=alive)
    if group == 0:
        tl.store(total + v, tl.sum(sum_y, axis=0), mask=v < value_dim)
        tl.store(total + value_dim, tl.sum(sum_u))


@triton.jit
@no_type_check
def reduce_kernel(
    parts, part_totals, weights, constant, state, total, num_splits, num_rows, num_features,
    WEIGHTED: tl.constexpr, SIZE: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Sum over slices, times the weight of each feature or of all: a program per (head, block)."""
    bh, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    size = num_rows * num_features
    i, r = block * SIZE + tl.arange(0, SIZE), tl.arange(0, R)
    acc, acc_total = tl.zeros([SIZE], tl.float32), tl.zeros([R], tl.float32)
    for split in range(num_splits):
        part = bh * num_splits + split
        acc += tl.load(parts + part * size + i, mask=i < size, other=0.0)
        acc_total += tl.load(part_totals + part * num_rows + r, mask=r < num_rows, other=0.0)
    weight = tl.load(weights + i % num_features) if WEIGHTED else weights
    tl.store(state + bh * size + i, acc * weight, mask=i < size)
    if block == 0:
        factor = tl.load(constant) if WEIGHTED else constant
        tl.store(total + bh * num_rows + r, acc_total * factor, mask=r < num_rows)


@triton.jit
@no_type_check
def read_tile(
    acc, x, parameters, state, rows, bh, h, head_dim, value_dim, num_features,
    FEATURES: tl.constexpr, RUNS: tl.constexpr, NUM_RUNS: tl.constexpr, OPERAND: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Return acc + phi(x)^T S, but for the last column of S, and phi(x) times that column."""
    v = tl.arange(0, V)
    state += bh * (value_dim + 1) * num_features
    acc_z = tl.zeros([N, F], tl.float32)
    for i in tl.static_range(NUM_RUNS):
        for group in range(RUNS[i][0], RUNS[i][1]):
            s, s_z = load_state(state, v, group * F + tl.arange(0, F), value_dim, num_features)
            phi = FEATURES(
                x, rows, parameters, bh, h, group * F, head_dim,
                RUNS[i][2], RUNS[i][3], F, E, OPERAND, False,
            )  # fmt: skip
            acc += dot(phi, tl.trans(s), OPERAND)
            acc_z += phi * s_z[None, :]
    return acc, tl.sum(acc_z, axis=1)


@triton.jit
@no_type_check
def load_total(total, bh, v, value_dim, N: tl.constexpr, V: tl.constexpr):
    """Return the constant part of a numerator in every row of a tile: [N, V]."""
    row = tl.load(total + bh * (value_dim + 1) + v, mask=v < value_dim, other=0.0)
    return tl.zeros([N, V], tl.float32) + row[None, :]


@triton.jit
@no_type_check
def read_kernel(
    x, parameters, state, total, out, z,
    heads, length, head_dim, value_dim, num_features, eps, x_b, x_h, x_n,
    FEATURES: tl.constexpr, RUNS: tl.constexpr, NUM_RUNS: tl.constexpr, OPERAND: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """[n, z] = phi(x)^T S + total, and o = n / z: a program per (head, tile)."""
    bh = tl.program_id(0).to(tl.int64)
    b, h = bh // heads, bh % heads
    n, e, v = tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, E), tl.arange(0, V)
    rows, keep = bh * length + n, n < length
    acc, zn = read_tile(
        load_total(total, bh, v, value_dim, N, V),
        load_rows(x + b * x_b + h * x_h, n, e, x_n, head_dim, keep),
        parameters, state, rows, bh, h, head_dim, value_dim, num_features,
        FEATURES, RUNS, NUM_RUNS, OPERAND, N, F, E, V,
    )  # fmt: skip
    zn += tl.load(total + bh * (value_dim + 1) + value_dim)
    tl.store(z + rows, zn, mask=keep)
    store_rows(out, rows, v, value_dim, acc / guard(zn, eps)[:, None], keep)


@triton.jit
@no_type_check
def pull_tile(
    xn, yn, un, acc, parameters, state, rows, bh, h, head_dim, value_dim, num_features,
    PULL: tl.constexpr, RUNS: tl.constexpr, NUM_RUNS: tl.constexpr, OPERAND: tl.constexpr,
    WITH_VALUES: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Return the gradient of [y, u]^T S^T phi(x) at x; and acc, plus phi(x)^T S WITH_VALUES."""
    v = tl.arange(0, V)
    state += bh * (value_dim + 1) * num_features
    dx = tl.zeros([N, E], tl.float32)
    for i in tl.static_range(NUM_RUNS):
        for group in range(RUNS[i][0], RUNS[i][1]):
            s, s_z = load_state(state, v, group * F + tl.arange(0, F), value_dim, num_features)
            grad_phi = dot(yn, s, OPERAND) + un[:, None] * s_z[None, :]
            dx, phi = PULL(
                dx, xn, grad_phi, rows, parameters, bh, h, group * F, head_dim,
                RUNS[i][2], RUNS[i][3], F, E, OPERAND,
            )  # fmt: skip
            if WITH_VALUES:
                acc += dot(phi, tl.trans(s), OPERAND)
    return dx, acc


@triton.jit
@no_type_check
def backward_kernel(
    query, key, value, grad_out, out, z, padding, query_parameters, key_parameters,
    state, grad_state, grad_total, grad_query, grad_key, grad_value,
    heads, query_len, key_len, head_dim, value_dim, num_features, eps,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    PULL_QUERIES: tl.constexpr, PULL_KEYS: tl.constexpr, KEY_FEATURES: tl.constexpr,
    RUNS: tl.constexpr, NUM_RUNS: tl.constexpr, OPERAND: tl.constexpr,
    HAS_PADDING: tl.constexpr, TOGETHER: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Gradients at a tile of queries, or at a tile of keys and values: a program per (head, tile).

    Queries meet the state of keys, and keys that of queries, which is summed before. TOGETHER takes
    the gradients at keys and values from the same features; apart, each has registers to itself.
    """
    bh, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, h = bh // heads, bh % heads
    query_tiles = tl.cdiv(query_len, N)
    if tile < query_tiles:
        pull_queries(
            query + b * q_b + h * q_h, grad_out + b * g_b + h * g_h, out, z,
            query_parameters, state, grad_query,
            tile, bh, h, query_len, head_dim, value_dim, num_features, eps, q_n, g_n,
            PULL_QUERIES, RUNS, NUM_RUNS, OPERAND, N, F, E, V,
        )  # fmt: skip
    else:
        pull_keys(
            key + b * k_b + h * k_h, value + b * v_b + h * v_h, padding + b * key_len,
            key_parameters, grad_state, grad_total, grad_key, grad_value,
            tile - query_tiles, bh, h, key_len, head_dim, value_dim, num_features, k_n, v_n,
            KEY_FEATURES, PULL_KEYS, RUNS, NUM_RUNS, OPERAND, HAS_PADDING, TOGETHER, N, F, E, V,
        )  # fmt: skip


@triton.jit
@no_type_check
def pull_queries(
    query, grad_out, out, z, parameters, state, grad_query,
    tile, bh, h, length, head_dim, value_dim, num_features, eps, q_n, g_n,
    PULL: tl.constexpr, RUNS: tl.constexpr, NUM_RUNS: tl.constexpr, OPERAND: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Write the gradient at a tile of queries."""
    n, e, v = tile * N + tl.arange(0, N), tl.arange(0, E), tl.arange(0, V)
    keep, rows = n < length, bh * length + n
    xn = load_rows(query, n, e, q_n, head_dim, keep)
    out, z = out + bh * length * value_dim, z + bh * length
    yn, un = load_sources(grad_out, out, z, n, v, g_n, value_dim, keep, eps, True)
    acc = tl.zeros([N, V], tl.float32)
    dx, _ = pull_tile(
        xn, yn, un, acc, parameters, state, rows, bh, h, head_dim, value_dim, num_features,
        PULL, RUNS, NUM_RUNS, OPERAND, False, N, F, E, V,
    )  # fmt: skip
    store_rows(grad_query, rows, e, head_dim, dx, keep)


@triton.jit
@no_type_check
def pull_keys(
    key, value, padding, parameters, state, total, grad_key, grad_value,
    tile, bh, h, length, head_dim, value_dim, num_features, k_n, v_n,
    FEATURES: tl.constexpr, PULL: tl.constexpr, RUNS: tl.constexpr, NUM_RUNS: tl.constexpr,
    OPERAND: tl.constexpr, HAS_PADDING: tl.constexpr, TOGETHER: tl.constexpr,
    N: tl.constexpr, F: tl.constexpr, E: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Write the gradients at a tile of keys and values, zeros at padding."""
    n, e, v = tile * N + tl.arange(0, N), tl.arange(0, E), tl.arange(0, V)
    exists, rows = n < length, bh * length + n
    keep = keep_rows(padding, n, length, HAS_PADDING)
    xn = load_rows(key, n, e, k_n, head_dim, keep)
    yn = load_rows(value, n, v, v_n, value_dim, keep)
    acc = load_total(total, bh, v, value_dim, N, V)
    dx, acc = pull_tile(
        xn, yn, keep.to(tl.float32), acc, parameters, state, rows, bh, h, head_dim, value_dim,
        num_features, PULL, RUNS, NUM_RUNS, OPERAND, TOGETHER, N, F, E, V,
    )  # fmt: skip
    store_rows(grad_key, rows, e, head_dim, tl.where(keep[:, None], dx, 0.0), exists)
    if not TOGETHER:
        acc, _ = read_tile(
            acc, xn, parameters, state, rows, bh, h, head_dim, value_dim, num_features,
            FEATURES, RUNS, NUM_RUNS, OPERAND, N, F, E, V,
        )  # fmt: skip
    store_rows(grad_value, rows, v, value_dim, tl.where(keep[:, None], acc, 0.0), exists)
