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
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.dispatch import takes_kernels
from macformer.ops.exponential_tiled import attend_twice, prepare, pull_twice
from macformer.ops.linear import linear_attention
from macformer.ops.precision import without_autocast
from macformer.ops.registration import Size, register_attention
from macformer.ops.tiling import Results, on_folded


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
    options = {"key_padding_mask": key_padding_mask, "eps": eps}
    out, denominator, state = fused.fused_forward(query, key, value, queries, keys, **options)
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
    options = {"key_padding_mask": key_padding_mask, "eps": eps}
    return list(fused.fused_backward(query, key, value, queries, keys, *results, state, **options))


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
