"""Linear attentions as operators of torch: schema, shapes, gradient and cost, said once for all.

An operator has the schema ``(query, key, value, PARAMETERS, key_padding_mask, eps) -> (out,
denominator, state)`` and a second one goes back through it. The denominator is that before the
guard, and the state is what the keys leave behind; both are float32 at least, and serve the way
back only.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from macformer.ops.precision import accumulation_dtype

Forward = Callable[..., tuple[Tensor, Tensor, Tensor]]
Backward = Callable[..., Sequence[Tensor]]


class Size(NamedTuple):
    """What features cost.

    Attributes:
        features: Features of a token.
        columns: Projections of a token that they are made of.
        extra_rows: Rows of the state beside those of the values and of their denominator.
    """

    features: int | torch.SymInt
    columns: int | torch.SymInt
    extra_rows: int = 0


def register_attention(
    name: str,
    parameters: str,
    *,
    forward: Forward,
    backward: Backward,
    size: Callable[..., Size],
    num_learnt: int = 0,
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Register ``macformer::name`` and ``macformer::name_backward``, and return the first.

    What is returned raises NotImplementedError in forward-mode differentiation, and ValueError if a
    parameter of three dimensions, [1 or heads, ...], has another number of heads.

    Args:
        parameters: The schema of what stands between value and key_padding_mask, if anything.
        forward: Takes what the schema says, in its order.
        backward: Takes the same, then whether the parameters need their gradients, the gradient at
            out, and forward's results. Returns the gradients at query, key, value and the first
            ``num_learnt`` parameters.
        size: Takes the shapes of the queries and of the parameters that are tensors, and the other
            parameters as they are.
        num_learnt: How many of the parameters receive gradients.
    """
    tensors, options = (
        "Tensor query, Tensor key, Tensor value",
        "Tensor? key_padding_mask, float eps",
    )
    inputs = ", ".join(filter(None, (tensors, parameters, options)))
    num_parameters = len(parameters.split(",")) if parameters else 0
    results = "Tensor grad_out, Tensor out, Tensor denominator, Tensor state"
    library = _new_library(name)
    attend = _define(library, name, f"({inputs}) -> (Tensor, Tensor, Tensor)", forward)
    more = f"bool learnt_need_grad, {results}"
    pull = _define(library, f"{name}_backward", f"({inputs}, {more}) -> Tensor[]", backward)

    @torch.library.register_fake(attend, lib=library)
    def _(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        return _empty_results(query, value, size(query.shape, *map(_shape, rest[:-2])))

    @torch.library.register_fake(pull, lib=library)
    def _(*arguments: Any) -> list[Tensor]:
        return [
            torch.empty_like(x, memory_format=torch.contiguous_format)
            for x in arguments[: 3 + num_learnt]
        ]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*(x if isinstance(x, Tensor) else None for x in inputs), *output)
        ctx.constants = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.mark_non_differentiable(*output[1:])

    def differentiate(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        *saved, out, denominator, state = ctx.saved_tensors
        inputs = [c if x is None else x for x, c in zip(saved, ctx.constants, strict=True)]
        learnt_need_grad = any(ctx.needs_input_grad[3 : 3 + num_learnt])
        grads = pull(*inputs, learnt_need_grad, grad_out, out, denominator, state)
        return *grads, *[None] * (len(inputs) - len(grads))

    torch.library.register_autograd(attend, differentiate, setup_context=setup_context, lib=library)

    def count(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None) -> int:
        return _flops(query, value, size(query, *rest[:num_parameters]))

    def count_twice(*shapes: Any, out_shape: Any = None) -> int:
        return 2 * count(*shapes)

    operators = torch.ops.macformer
    register_flop_formula(getattr(operators, name))(count)
    register_flop_formula(getattr(operators, f"{name}_backward"))(count_twice)

    def attend_or_refuse(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        _refuse_tangents(name, inputs)
        _check_heads(name, inputs[0], inputs[3 : 3 + num_parameters])
        return attend(*inputs)

    return attend_or_refuse


_libraries: dict[str, torch.library.Library] = {}


def _new_library(name: str) -> torch.library.Library:
    """Return what holds an operator; one of this name, as a notebook's cell before, goes first."""
    _libraries.pop(name, None)
    library = _libraries[name] = torch.library.Library("macformer", "FRAGMENT")
    return library


def _define(
    library: torch.library.Library, name: str, schema: str, function: Callable[..., Any]
) -> Callable[..., Any]:
    """Define an operator, without the checks at each call that ``torch.library.custom_op`` adds.

    They would cost a fiftieth of a pass over 512 tokens; ``opcheck`` makes the same ones in a test.
    """
    library.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    library.impl(name, function, "CompositeExplicitAutograd")
    return getattr(torch.ops.macformer, name).default


def _refuse_tangents(name: str, inputs: Sequence[Any]) -> None:
    """Refuse forward-mode differentiation, in which an operator would lose tangents in silence."""
    tensors = (x for x in inputs if isinstance(x, Tensor))
    if any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise NotImplementedError(
            f"macformer::{name} has no forward-mode derivative (torch.func.jvp, jacfwd, dual "
            "numbers); differentiate in reverse mode"
        )


def _check_heads(name: str, query: Tensor, parameters: Sequence[Any]) -> None:
    """Refuse matrices that are neither one for all heads nor one for each."""
    num_heads = query.shape[1]
    for x in parameters:
        if isinstance(x, Tensor) and x.ndim == 3 and len(x) not in (1, num_heads):
            raise ValueError(
                f"macformer::{name} takes one matrix for all heads or one for each of the "
                f"{num_heads}, got {len(x)}"
            )


def _shape(x: Any) -> Any:
    return x.shape if isinstance(x, Tensor) else x


def _empty_results(query: Tensor, value: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, query_len, _ = query.shape
    value_dim, dtype = value.shape[-1], accumulation_dtype(query)
    rows = value_dim + 1 + size.extra_rows
    return (
        query.new_empty(batch, heads, query_len, value_dim, dtype=dtype),
        query.new_empty(batch, heads, query_len, 1, dtype=dtype),
        query.new_empty(batch, heads, rows, size.features, dtype=dtype),
    )


def _flops(query: torch.Size, value: torch.Size, size: Size) -> int:
    """Count the forward's multiplications and additions; the backward does twice as many."""
    batch, heads, query_len, head_dim = query
    key_len, value_dim = value[-2:]
    each = 2 * head_dim * size.columns + 2 * size.features * (value_dim + 1)
    return int(batch * heads * (query_len + key_len) * each)
