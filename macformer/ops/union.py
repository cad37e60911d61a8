"""Softmax over a union of sets of keys, each attended to in a layout of its own.

The keys of a pattern often fall into sets that are regular by themselves: a window, a block, a
column, a round of hashing. A *layer* of :class:`Part` holds a query at most once, the first layer
every query, and the layers share one softmax: their outputs are averaged by their normalisers.
Parts read from tensors of the sequence and write into them, one after the other, so that neither
the keys of a block nor any weights are stored for all blocks at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from macformer.ops.flash import attend, attend_backward, lowest, to_one_width
from macformer.ops.precision import accumulation_dtype


@runtime_checkable
class Place(Protocol):
    """Some rows of a contiguous ``(B, H, N, X)`` in a layout ``(N', G, n, X)`` of the kernels."""

    def read(self, x: Tensor) -> Tensor: ...

    def add(self, x: Tensor, rows: Tensor) -> None: ...


@runtime_checkable
class Places(Place, Protocol):
    """Rows that stand in the layout once, so that they may be written."""

    def write(self, x: Tensor, rows: Tensor) -> None: ...


@dataclass(frozen=True)
class View:
    """Rows that torch can view where they are, by slices and reshapes."""

    view: Callable[[Tensor], Tensor]

    def read(self, x: Tensor) -> Tensor:
        return self.view(x)

    def write(self, x: Tensor, rows: Tensor) -> None:
        self.view(x).copy_(rows)

    def add(self, x: Tensor, rows: Tensor) -> None:
        self.view(x).add_(rows)


@dataclass(frozen=True)
class Picked:
    """The rows at some indices, the same for all examples and heads."""

    index: Tensor

    def read(self, x: Tensor) -> Tensor:
        return x.index_select(2, self.index)

    def add(self, x: Tensor, rows: Tensor) -> None:
        x.index_add_(2, self.index, rows)


def span(start: int, stop: int | None) -> View:
    """Return the rows from one place to another."""
    return View(lambda x: x[:, :, start:stop])


@dataclass(frozen=True)
class Part:
    """Some queries, and the keys to which they attend.

    Attributes:
        masks: Added to the logits, ``(N' or 1, G or 1, n or 1, S)``; :func:`bias` makes one.
            Several are summed when the part's turn comes.
    """

    queries: Places
    keys: Place
    masks: tuple[Tensor, ...] = ()

    def mask(self) -> Tensor | None:
        return sum(self.masks[1:], self.masks[0]) if self.masks else None


def bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what to add to logits: zero, or a number so low that a key does not count.

    It is finite, so that a query without an allowed key has a normaliser, of next to nothing.
    """
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, lowest(dtype))


def union_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    layers: Sequence[Sequence[Part]],
    *,
    scale: float,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend to all layers' keys by one softmax; without an allowed key the output is zero.

    .. math::
        o = \frac{\sum_p e^{z_p} o_p}{\sum_p e^{z_p}}, \qquad
        z_p = \log \sum_{j \in p} e^{\sigma q \cdot k_j}, \quad
        o_p = \sum_{j \in p} e^{\sigma q \cdot k_j - z_p} v_j

    A key that stands in two layers counts twice.

    Args:
        layers: Parts with no query in common; those of the first layer have every query.
        scale: :math:`\sigma`.
    """
    out = _Union.apply(*to_one_width(query, key, value), layers, scale)
    return out[..., : value.shape[-1]]


class _Union(torch.autograd.Function):
    r"""Keep the union's output and normaliser alone.

    With the weight of a key over all parts, :math:`p_j = e^{\sigma q \cdot k_j - z}`, the
    gradient of its logit is :math:`p_j (\dot o \cdot v_j - \dot o \cdot o)`, where o and z are
    the union's: the kernel's own formula, so that each part's backward pass takes them for its own.
    """

    @staticmethod
    def forward(
        ctx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layers: Sequence[Sequence[Part]],
        scale: float,
    ) -> Tensor:
        q, k, v = (x.contiguous() for x in (query, key, value))
        dtype = accumulation_dtype(q)
        total = torch.empty_like(q, dtype=dtype)
        normaliser = torch.empty_like(q[..., :1], dtype=dtype)
        for is_first, part in _in_turn(layers):
            tensors = (part.queries.read(q), part.keys.read(k), part.keys.read(v))
            out, z = attend(*tensors, part.mask(), scale=scale)
            out = out.to(dtype)
            if not is_first:
                before, z_before = part.queries.read(total), part.queries.read(normaliser)
                both = torch.logaddexp(z_before, z)
                out = before.lerp_(out, (z - both).exp_())
                z = both
            part.queries.write(total, out)
            part.queries.write(normaliser, z)
        is_empty = normaliser < lowest(q.dtype) / 2
        out = total.to(q.dtype).masked_fill_(is_empty, 0)
        ctx.scale, ctx.layers = scale, layers
        # no weight is left where nothing is seen
        ctx.save_for_backward(q, k, v, out, normaliser.masked_fill_(is_empty, -lowest(dtype)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, normaliser = ctx.saved_tensors
        grad = grad.contiguous()
        dtype = normaliser.dtype
        grad_q = torch.empty_like(q, dtype=dtype)
        grad_k, grad_v = (torch.zeros_like(x, dtype=dtype) for x in (k, v))
        for is_first, part in _in_turn(ctx.layers):
            queries, keys = part.queries, part.keys
            grads = attend_backward(
                queries.read(grad),
                queries.read(q),
                keys.read(k),
                keys.read(v),
                queries.read(out),
                queries.read(normaliser),
                part.mask(),
                scale=ctx.scale,
            )
            of_queries, of_keys, of_values = (x.to(dtype) for x in grads)
            (queries.write if is_first else queries.add)(grad_q, of_queries)
            keys.add(grad_k, of_keys)
            keys.add(grad_v, of_values)
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), None, None


def _in_turn(layers: Sequence[Sequence[Part]]) -> list[tuple[bool, Part]]:
    return [(number == 0, part) for number, layer in enumerate(layers) for part in layer]
