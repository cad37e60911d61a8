"""Triton kernels of attention in linear time: features live in registers and never reach memory.

FEATURES is the function of a feature map, parameters what it reads; it is told which head of the
batch a tile belongs to, and which of all rows it holds. RUNS says which groups of features, of F
each, are of one make: the code of each run is compiled by itself. Features, sums, the denominator
and the constant part are float32; OPERAND is the dtype of matrix products. The way back is in
:mod:`macformer.ops.fused_backward`.
"""

from typing import no_type_check  # annotations speak to the compiler

import triton
import triton.language as tl

from macformer.ops.fused_tiles import (
    dot,
    guard,
    keep_rows,
    load_rows,
    load_sources,
    load_state,
    load_total,
    store_rows,
)


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
