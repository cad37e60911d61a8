"""Softmax over keys, then over features, by torch's kernel for it, and the way back in tiles."""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from macformer.ops.flash import attend, heads_as_examples, lowest, to_one_width
from macformer.ops.precision import accumulation_dtype
from macformer.ops.tiling import HeadMatrices, Results, key_lengths, tile_tokens


def attend_twice(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    norms: Tensor,
    *,
    omega: Tensor,
    key_padding_mask: Tensor | None,
) -> Results:
    """Return the output, z in place of a denominator, and the state: m, a row of ones, and c.

    Args:
        norms: What :func:`prepare` returns, as omega, key and value.
    """
    (batch, heads), value_dim, dtype = key.shape[:2], value.shape[-1], norms.dtype
    whole = 0, slice(0, heads), slice(None)
    directions = HeadMatrices(omega).of(norms[0], whole).mT.contiguous()
    tensors = directions.expand(batch, -1, -1, -1), key.to(dtype), value.to(dtype), query.to(dtype)
    w, k, v, q = to_one_width(*tensors)
    sums = []
    for b, length in enumerate(key_lengths(key, key_padding_mask)):
        tokens = slice(b, b + 1), slice(None), slice(max(1, length))
        sums.append(attend(w[b : b + 1], k[tokens], v[tokens], norms[tokens].mT, scale=1.0))
    means, totals = (torch.cat(x) for x in zip(*sums, strict=True))
    is_empty = totals < lowest(dtype) / 2
    means.masked_fill_(is_empty, 0)
    totals.masked_fill_(is_empty, 0)
    q, w, m, c = heads_as_examples(q, w, means, totals)
    out, normaliser = (x.view(*query.shape[:3], -1) for x in attend(q, w, m, c.mT, scale=1.0))
    state = torch.cat([means[..., :value_dim], torch.ones_like(totals), totals], -1)
    return out[..., :value_dim].contiguous(), normaliser, state.mT.contiguous()


def pull_twice(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    norms: Tensor,
    grad_out: Tensor,
    out: Tensor,
    normaliser: Tensor,
    state: Tensor,
    *,
    omega: Tensor,
    scale: float,
    key_padding_mask: Tensor | None,
) -> Results:
    """Return the gradients of :func:`attend_twice`, some heads at a time."""
    (batch, heads, num_queries, _), dtype = query.shape, state.dtype
    empty = torch.empty_like if key_padding_mask is None else torch.zeros_like
    options = {"dtype": dtype, "memory_format": torch.contiguous_format}
    grads = [empty(x, **options) for x in (query, key, value)]
    lengths = key_lengths(key, key_padding_mask)
    num_heads = max(1, _num_tokens(state) // max(num_queries, key.shape[2]))
    matrices = HeadMatrices(omega)
    for b, h in product(range(batch), range(0, heads, num_heads)):
        at = b, slice(h, min(h + num_heads, heads))
        tokens = *at, slice(lengths[b])
        sums, (grad_q, grad_k, grad_v) = state[at], (x[at] for x in grads)
        w = matrices.of(sums, tokens)
        tensors = (x[at].to(dtype) for x in (query, grad_out, out, normaliser))
        grad_sums = _pull_queries(*tensors, w, sums, into=grad_q)
        tensors = (x[tokens].to(dtype) for x in (key, value, norms))
        into = grad_k[:, tokens[2]], grad_v[:, tokens[2]]
        _pull_keys(*tensors, w, sums, grad_sums, scale=scale, into=into)
    first, second, third = (x.to(y.dtype) for x, y in zip(grads, (query, key, value), strict=True))
    return first, second, third


def _pull_queries(
    q: Tensor, grad: Tensor, out: Tensor, normaliser: Tensor, w: Tensor, state: Tensor, into: Tensor
) -> Tensor:
    """Write the gradient of some heads' queries, and return that of the sums over keys."""
    sums, shifts = state[:, :-1], state[:, -1:]
    grad_sums = torch.zeros_like(sums)
    for t, p in _tiles_of_weights(q, w, -normaliser, shifts):
        g = grad[:, t]
        rows = torch.cat([g, (g * out[:, t]).sum(-1, keepdim=True).neg_()], -1)
        grad_sums.baddbmm_(rows.mT, p)
        grad_exponents = torch.bmm(rows, sums).mul_(p)
        torch.bmm(grad_exponents, w.mT, out=into[:, t])
    return grad_sums


def _pull_keys(
    k: Tensor,
    v: Tensor,
    norms: Tensor,
    w: Tensor,
    state: Tensor,
    grad_sums: Tensor,
    *,
    scale: float,
    into: tuple[Tensor, Tensor],
) -> None:
    """Write the gradients of some heads' keys and values."""
    grad_k, grad_v = into
    for t, p in _tiles_of_weights(k, w, norms, -state[:, -1:]):
        torch.bmm(p, grad_sums[:, :-1].mT, out=grad_v[:, t])
        rows = torch.cat([v[:, t], torch.ones_like(norms[:, t])], -1)
        grad_exponents = torch.bmm(rows, grad_sums).mul_(p)
        torch.bmm(grad_exponents, w.mT, out=grad_k[:, t])
        grad_k[:, t].addcmul_(grad_exponents.sum(-1, keepdim=True), k[:, t], value=-scale)


def _tiles_of_weights(
    x: Tensor, w: Tensor, of_tokens: Tensor, of_features: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    r"""Yield some tokens i after the other, and :math:`\exp(w_f^\top x_i + u_i + c_f)` of them."""
    columns = torch.cat([w, torch.ones_like(of_features), of_features], -2)
    num_tokens = _num_tokens(w)
    for start in range(0, x.shape[1], num_tokens):
        t = slice(start, min(start + num_tokens, x.shape[1]))
        u = of_tokens[:, t]
        rows = torch.cat([x[:, t], u, torch.ones_like(u)], -1)  # so the product adds u and c
        yield t, torch.bmm(rows, columns).exp_()


def _num_tokens(features: Tensor) -> int:
    """Return the tokens whose weights and the gradients of these make a tile."""
    return tile_tokens(2 * features.shape[-1])


def prepare(
    key: Tensor, value: Tensor, omega: Tensor, scale: float, key_padding_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Return keys and values without what stands at padding, :math:`-s \|k\|^2 / 2`, and omega.

    The exponential of what stands for the norm of padding is zero, and omega has the root of s.
    """
    dtype = accumulation_dtype(key)
    norms = torch.linalg.vector_norm(key, dim=-1, keepdim=True, dtype=dtype)
    norms = norms.square_().mul_(-scale / 2)
    if key_padding_mask is not None:
        padding = key_padding_mask[:, None, :, None]
        key, value = key.masked_fill(padding, 0), value.masked_fill(padding, 0)
        norms.masked_fill_(padding, lowest(dtype))
    return key, value, norms, omega.to(dtype) * math.sqrt(scale)
