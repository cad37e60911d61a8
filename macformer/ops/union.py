"""Softmax over a union of sets of keys, each attended to in a layout of its own.

The keys of a pattern often fall into sets that are regular by themselves: a block and its
neighbours, a column, a round of hashing. Each set is a :class:`Part`, and the parts share one
softmax: their outputs are averaged by their normalisers. On CPUs a part runs through torch's flash
kernel, which stores no weights, forward and backward; elsewhere through plain torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Part:
    """One set of keys for each query, in any layout ``(N, G, L, E)`` of the flash kernels.

    Attributes:
        mask: Added to the logits, ``(N or 1, G or 1, L or 1, S)``; :func:`bias` makes it.
        is_causal: Whether query l sees keys up to l only.
        restore: Brings the part's queries, ``(N, G, L, X)``, to the layout of the union; its second
            argument fills the place of queries that the part leaves out.
        arrange: The inverse of ``restore``.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    is_causal: bool
    restore: Callable[[Tensor, float], Tensor]
    arrange: Callable[[Tensor], Tensor]


def bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what to add to logits: zero, or a number so low that a key does not count.

    It is finite, so that a query without an allowed key has a normaliser, of next to nothing.
    """
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, lowest(dtype))


def lowest(dtype: torch.dtype) -> float:
    return -3e4 if dtype == torch.float16 else -1e30


def keys_before(part: Part, distance: int) -> Part:
    """Leave to each query l of a part the keys up to l - distance; a part without mask rows."""
    num_keys = min(part.key.shape[2], part.query.shape[2] - distance)

    def restore(x: Tensor, fill: float) -> Tensor:
        return part.restore(pad(x, (0, 0, distance, 0), value=fill), fill)

    def arrange(x: Tensor) -> Tensor:
        return part.arrange(x)[:, :, distance:]

    k, v = (x[:, :, :num_keys] for x in (part.key, part.value))
    mask = None if part.mask is None else part.mask[..., :num_keys]
    return Part(part.query[:, :, distance:], k, v, mask, True, restore, arrange)


def keys_after(part: Part, distance: int) -> Part:
    """Leave to each query l of a part the keys from l + distance on, as many keys as queries.

    Turned round, they are those up to a diagonal, which the kernels know as causality.
    """
    num_queries = part.query.shape[2] - distance
    assert part.key.shape[2] == part.query.shape[2]

    def restore(x: Tensor, fill: float) -> Tensor:
        return part.restore(pad(x.flip(2), (0, 0, 0, distance), value=fill), fill)

    def arrange(x: Tensor) -> Tensor:
        return part.arrange(x)[:, :, :num_queries].flip(2)

    q = part.query[:, :, :num_queries].flip(2)
    k, v = (x[:, :, distance:].flip(2) for x in (part.key, part.value))
    mask = None if part.mask is None else part.mask[..., distance:].flip(-1)
    return Part(q, k, v, mask, True, restore, arrange)


def union_attention(parts: Sequence[Part], *, scale: float) -> Float[Tensor, "*layout Ev"]:
    r"""Attend to all parts' keys by one softmax; without an allowed key the output is zero.

    .. math::
        o = \frac{\sum_p e^{z_p} o_p}{\sum_p e^{z_p}}, \qquad
        z_p = \log \sum_{j \in p} e^{\sigma q \cdot k_j}, \quad
        o_p = \sum_{j \in p} e^{\sigma q \cdot k_j - z_p} v_j

    A key that stands in two parts counts twice.

    Args:
        scale: :math:`\sigma`.
    """
    if parts[0].query.device.type != "cpu":
        return union_attention_reference(parts, scale=scale)
    value_dim = parts[0].value.shape[-1]
    width = max(parts[0].query.shape[-1], value_dim)  # the kernel knows one width
    tensors = [
        pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x
        for part in parts
        for x in (part.query, part.key, part.value)
    ]
    return _Union.apply(parts, scale, *tensors)[..., :value_dim]


def union_attention_reference(
    parts: Sequence[Part], *, scale: float
) -> Float[Tensor, "*layout Ev"]:
    """Define :func:`union_attention` by the weights themselves."""
    outs, normalisers = [], []
    for part in parts:
        logits = scale * part.query @ part.key.mT
        if part.mask is not None:
            logits = logits + part.mask
        if part.is_causal:
            future = torch.ones_like(logits[0, 0], dtype=torch.bool).triu(1)
            logits = logits.masked_fill(future, -torch.inf)
        normaliser = logits.logsumexp(-1, keepdim=True)
        out = (logits - normaliser).exp() @ part.value
        outs.append(part.restore(out, 0.0))
        normalisers.append(part.restore(normaliser, lowest(normaliser.dtype)))
    total = torch.stack(normalisers)
    out = (total.softmax(0) * torch.stack(outs)).sum(0)
    return out.masked_fill(_is_empty(total.logsumexp(0), out.dtype), 0)


class _Union(torch.autograd.Function):
    """Keep the union's output and normaliser alone.

    With the weight of a key over all parts, :math:`p_j = e^{\\sigma q \\cdot k_j - z}`, the
    gradient of its logit is :math:`p_j (\\dot o \\cdot v_j - \\dot o \\cdot o)`, where o and z are
    the union's: the kernel's own formula, so that each part's backward pass takes them for its own.
    """

    @staticmethod
    def forward(ctx, parts: Sequence[Part], scale: float, *tensors: Tensor) -> Tensor:
        total, normaliser = None, None
        for part, inputs in zip(parts, _in_threes(tensors), strict=True):
            out, z = _flash(*inputs, 0.0, part.is_causal, attn_mask=part.mask, scale=scale)
            out, z = part.restore(out, 0.0), part.restore(z[..., None], lowest(z.dtype))
            if total is None:
                total, normaliser = out, z
            else:
                both = torch.logaddexp(normaliser, z)
                total = (normaliser - both).exp() * total + (z - both).exp() * out
                normaliser = both
        dtype = tensors[0].dtype
        total = total.to(dtype).masked_fill_(_is_empty(normaliser, dtype), 0)
        ctx.scale = scale
        ctx.parts = [(part.mask, part.is_causal, part.arrange) for part in parts]
        ctx.save_for_backward(total, normaliser, *tensors)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        total, normaliser, *tensors = ctx.saved_tensors
        grad = grad.masked_fill(_is_empty(normaliser, total.dtype), 0)
        grads = []
        for (mask, is_causal, arrange), inputs in zip(ctx.parts, _in_threes(tensors), strict=True):
            out, z, grad_out = (arrange(x) for x in (total, normaliser, grad))
            options = {"attn_mask": mask, "scale": ctx.scale}
            z = z.squeeze(-1)
            grads += _flash_backward(grad_out, *inputs, out, z, 0.0, is_causal, **options)
        return None, None, *grads


def _is_empty(normaliser: Tensor, dtype: torch.dtype) -> Tensor:
    return normaliser < lowest(dtype) / 2


def _in_threes(tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    return [tensors[i : i + 3] for i in range(0, len(tensors), 3)]
