"""The Triton kernel of all gradients of attention in linear time, at queries, keys and values.

PULL is the function of a feature map that takes gradients at features to gradients at rows;
everything else is named as in :mod:`macformer.ops.fused_kernels`.
"""

from typing import no_type_check  # annotations speak to the compiler

import triton
import triton.language as tl

from macformer.ops.fused_kernels import read_tile
from macformer.ops.fused_tiles import (
    dot,
    keep_rows,
    load_rows,
    load_sources,
    load_state,
    load_total,
    store_rows,
)


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
