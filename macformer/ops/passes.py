"""Both ways through an attention by features: kernels where a GPU takes them, tiles elsewhere."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from macformer.ops.dispatch import takes_kernels
from macformer.ops.registration import Backward, Forward
from macformer.ops.tiled import FeatureMap, tiled_backward, tiled_forward

Grads = Sequence[Tensor | None]
# Of queries, keys, an operator's parameters, and for each learnt one what its gradient is added to,
# if anything: the maps of queries and of keys, which may be one.
MakeMaps = Callable[[Tensor, Tensor, Sequence[Any], Grads], tuple[FeatureMap, FeatureMap]]
# The same as FusedMaps of macformer.ops.fused, or None where there is nothing for them to compute.
MakeKernels = Callable[[Tensor, Tensor, Sequence[Any], Grads], tuple[Any, Any] | None]


def through_maps(
    name: str,
    make_maps: MakeMaps,
    *,
    make_kernels: MakeKernels | None = None,
    num_learnt: int = 0,
) -> tuple[Forward, Backward]:
    """Return forward and backward of an operator, as ``register_attention`` takes them.

    Args:
        name: Of the operator, for the warning where kernels do not take what they are given.
        make_kernels: None where the operator has no kernels.
        num_learnt: As ``register_attention`` has it.
    """

    def choose(
        query: Tensor, key: Tensor, value: Tensor, parameters: Sequence[Any], grads: Grads
    ) -> tuple[Forward, Backward, Any, Any]:
        """Return the passes that take these inputs, and their maps of queries and of keys."""
        if make_kernels is not None and takes_kernels(name, query, key, value):
            from macformer.ops.fused import fused_backward, fused_forward

            if maps := make_kernels(query, key, parameters, grads):
                return fused_forward, fused_backward, *maps
        return tiled_forward, tiled_backward, *make_maps(query, key, parameters, grads)

    def forward(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *parameters, mask, eps = rest
        inputs = query, key, value
        attend, _, queries, keys = choose(*inputs, parameters, [None] * num_learnt)
        return attend(*inputs, queries, keys, key_padding_mask=mask, eps=eps)

    def backward(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> list[Tensor]:
        *parameters, mask, eps, learnt_need_grad, grad_out, out, denominator, state = rest
        inputs, results = (query, key, value), (grad_out, out, denominator, state)
        learnt = parameters[:num_learnt]
        of_learnt = [torch.zeros_like(x, dtype=state.dtype) for x in learnt]
        grads: Grads = of_learnt if learnt_need_grad else [None] * num_learnt
        _, pull, queries, keys = choose(*inputs, parameters, grads)
        of_inputs = pull(*inputs, queries, keys, *results, key_padding_mask=mask, eps=eps)
        rounded = (g.to(x.dtype, copy=True) for g, x in zip(of_learnt, learnt, strict=True))
        return [*of_inputs, *rounded]

    return forward, backward
