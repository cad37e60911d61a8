r"""Attention through positive random features that are never stored.

It is softmax twice: each feature averages the values by a softmax over keys, and each query
averages these means by a softmax over features.

.. math::
    m_f = \sum_s e^{w_f^\top k_s - \|k_s\|^2 / 2 - c_f} v_s, \qquad
    o_l = \sum_f e^{w_f^\top q_l + c_f - z_l} m_f

where c and z make the weights sum to one; the norm of a query cancels. On a CPU both go forward
through torch's kernel of softmax. The Triton kernels take the largest exponent of a feature for
:math:`c_f`, and that of a query for :math:`z_l`, which cancels as well. No exponential exceeds one,
and no shift has a gradient.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.dispatch import takes_kernels
from macformer.ops.flash import attend, heads_as_examples, lowest, to_one_width
from macformer.ops.linear import accumulation_dtype, linear_attention, without_autocast
from macformer.ops.registration import Size, register_attention
from macformer.ops.tiling import HeadMatrices, Results, key_lengths, on_folded, tile_tokens


def exponential_features(
    x: Float[Tensor, "B H N E"], omega: Float[Tensor, "heads E F"], *, scale: float = 1.0
) -> Float[Tensor, "B H N F"]:
    r"""Map to :math:`\phi(x) = \exp(\Omega^\top x' - \|x'\|^2 / 2) / \sqrt F, x' = \sqrt s x`."""
    x = x * math.sqrt(scale)
    return (x @ omega - x.square().sum(-1, keepdim=True) / 2).exp() / omega.shape[-1] ** 0.5


def exponential_attention_reference(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    scale: float = 1.0,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
) -> Float[Tensor, "B H L Ev"]:
    """Define :func:`exponential_attention`, where no exponential leaves the range of its dtype."""
    return linear_attention(
        exponential_features(query, omega, scale=scale),
        exponential_features(key, omega, scale=scale),
        value,
        key_padding_mask=key_padding_mask,
        eps=0.0,
    )


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


@without_autocast
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    omega: Tensor,
    scale: float,
    key_padding_mask: Tensor | None,
    eps: float,
) -> Results:
    if not takes_kernels("exponential_attention", query, key, value):
        key, value, norms, omega = prepare(key, value, omega, scale, key_padding_mask)
        options = {"num_columns": 2 * omega.shape[-1], "key_padding_mask": key_padding_mask}
        return on_folded(partial(attend_twice, omega=omega), (query, key, value, norms), **options)
    from macformer.ops import exponential_triton, fused

    assert scale == 1  # on a GPU queries and keys are scaled before
    peaks = exponential_triton.find_peaks(key, omega, key_padding_mask)
    queries, keys = exponential_triton.exponentials(query, omega, peaks)
    options = {"key_map": keys, "key_padding_mask": key_padding_mask, "eps": eps}
    out, denominator, state = fused.fused_forward(query, key, value, queries, **options)
    return out, denominator, torch.cat([state, peaks], dim=-2)


@without_autocast
def _backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    omega: Tensor,
    scale: float,
    key_padding_mask: Tensor | None,
    eps: float,
    _: bool,
    *results: Tensor,
) -> list[Tensor]:
    if not takes_kernels("exponential_attention", query, key, value):
        key, value, norms, omega = prepare(key, value, omega, scale, key_padding_mask)
        options = {"num_columns": 2 * omega.shape[-1], "key_padding_mask": key_padding_mask}
        op = partial(pull_twice, omega=omega, scale=scale)
        return list(on_folded(op, (query, key, value, norms, *results), **options))
    from macformer.ops import exponential_triton, fused

    *results, state = results
    state, peaks = state[..., :-1, :].contiguous(), state[..., -1:, :].contiguous()
    queries, keys = exponential_triton.exponentials(query, omega, peaks)
    options = {"key_map": keys, "key_padding_mask": key_padding_mask, "eps": eps}
    return list(fused.fused_backward(query, key, value, queries, *results, state, **options))


def _size(query: torch.Size, omega: torch.Size, scale: float) -> Size:
    return Size(features=omega[-1], columns=omega[-1], extra_rows=1)


_attend = register_attention(
    "exponential_attention",
    "Tensor omega, float scale",
    forward=_forward,
    backward=_backward,
    size=_size,
)


def exponential_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    scale: float = 1.0,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend through positive random features (Choromanski et al. 2021, FAVOR+, lemma 1).

    .. math::
        \phi(x) = \exp(\Omega^\top x' - \|x'\|^2 / 2) / \sqrt F, \quad x' = \sqrt s\, x, \qquad
        o_l = \frac{\phi(q_l)^\top \sum_s \phi(k_s) v_s^\top}{\phi(q_l)^\top \sum_s \phi(k_s)}

    The paper adds a small number to each feature, which mixes uniform attention in; here nothing
    is added, and no norm takes a feature out of its range.

    On CUDA, Triton kernels take query, key and value of one dtype below float64 and dims to 128.
    Everything else falls back to plain torch in float32 or float64, which stores no weights on a
    CPU. The output is rounded once.

    Args:
        omega: One set of directions for all heads, or one for each; it receives no gradient.
        scale: s, the factor of dot products in the kernel that is estimated.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator of an example without keys away from zero in the kernels; without
            them the output of such an example is zero.
        out_dtype: Of the output, that of value unless given.

    Raises:
        ValueError: If omega asks for a gradient.
    """
    if omega.requires_grad:
        raise ValueError("omega requires a gradient, and random directions receive none; detach it")
    if query.is_cuda:  # its kernels know no scale
        query, key, scale = query * math.sqrt(scale), key * math.sqrt(scale), 1.0
    out, _, _ = _attend(query, key, value, omega, scale, key_padding_mask, eps)
    return out.to(value.dtype if out_dtype is None else out_dtype)
