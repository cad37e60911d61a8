"""Search the cheapest random features that meet an error on given queries and keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from macformer.attention import RMFA, KernelizedAttention, SoftmaxAttention, kernels
from macformer.attention.inputs.guard import bound_inputs
from macformer.attention.maclaurin.kernels import (
    Kernel,
    in_closed_form,
    truncated,
    truncation_degree,
)
from macformer.features.calls import AttentionCall
from macformer.features.error import error_over_signal
from macformer.ops import MaclaurinFeatures, maclaurin_attention

Sampler = Callable[..., MaclaurinFeatures]

_WITHIN = 0.99  # of the queries and keys, that the bound on their product is to hold for


class SearchError(ValueError):
    """An attention whose features cannot be chosen; one line says why."""


class Inputs(NamedTuple):
    """What one layer's kernel receives for one batch, and the exact output."""

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    key_padding_mask: Tensor | None
    exact: Tensor


@dataclass(frozen=True)
class Choice:
    """Features of one sampler, with the error of their attention and their cost.

    Attributes:
        max_degree: Where the series is cut by choice; None where it ends below float32.
        degree: Its highest degree, then.
        error: Over the signal, in the layer where it is largest.
        columns: Projections per token.
        features: One of the draws.
    """

    sampler: str
    max_degree: int | None
    degree: int
    num_features: int
    error: float
    columns: int
    features: MaclaurinFeatures


def kernel_of(attention: nn.Module) -> Kernel:
    """Say which kernel an attention computes or estimates.

    Raises:
        SearchError: If it has none with known coefficients.
    """
    if isinstance(attention, SoftmaxAttention):
        return kernels.exp()
    if isinstance(attention, RMFA):
        return in_closed_form(attention.kernel, dot_bound=attention.dot_bound)
    if isinstance(attention, KernelizedAttention):
        return attention.kernel
    raise SearchError(
        f"{type(attention).__name__} has no kernel with known Maclaurin coefficients; "
        "softmax, rmfa_* and kernelized_* have"
    )


def prepare_inputs(calls: Sequence[AttentionCall], *, num_layers: int) -> list[Inputs]:
    """Attend exactly with what each attention received; layers vary first, then batches."""
    prepared = []
    for index, call in enumerate(calls):
        bounds = {name: getattr(call.attention, name, None) for name in ("scale", "guard")}
        mask = call.key_padding_mask
        with torch.no_grad():
            query, key = bound_inputs(call.query, call.key, **bounds, key_padding_mask=mask)
        exact = attend_exactly(
            kernel_of(call.attention), query, key, call.value, key_padding_mask=mask
        )
        prepared.append(Inputs(index % num_layers, query, key, call.value, mask, exact))
    return prepared


def attend_exactly(
    kernel: Kernel,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_padding_mask: Tensor | None,
) -> Tensor:
    """Attend with the exact weights of a kernel, to inputs as they are."""
    attention = KernelizedAttention(
        num_heads=query.shape[1],
        head_dim=query.shape[3],
        kernel=kernel,
        input_norm=None,
        guard=None,
        scale=None,
    )
    return attention(query, key, value, key_padding_mask=key_padding_mask)


def find_dot_bound(inputs: Sequence[Inputs]) -> float:
    r"""Return the :math:`|q| |k| / \sqrt{E}` that 99 % of queries and of keys keep within.

    Of those that are tokens: padding has queries and keys, too.
    """
    largest = 0.0
    for _, query, key, _, mask, _ in inputs:
        norms = [_sorted_norms(x, mask) for x in (query, key)]
        product = torch.stack([norm[int(_WITHIN * (len(norm) - 1))] for norm in norms]).prod()
        largest = max(largest, float(product) / query.shape[-1] ** 0.5)
    return largest


def _sorted_norms(x: Tensor, key_padding_mask: Tensor | None) -> Tensor:
    norms = x.norm(dim=-1).float().transpose(1, 2)
    present = norms if key_padding_mask is None else norms[~key_padding_mask]
    return present.flatten().sort().values


def search(
    inputs: Sequence[Inputs],
    kernel: Kernel,
    sampler: Sampler,
    *,
    max_degree: int | None,
    dot_bound: float,
    num_features: Sequence[int],
    error: float,
    num_draws: int,
) -> Choice | None:
    """Find the fewest features that meet an error.

    Returns:
        The choice, or that of the most features where none meets the error; None where the series
        is cut too early for any number of features.
    """
    if max_degree is not None:
        kernel = truncated(kernel, max_degree=max_degree)
        if measure_error(inputs, [partial(attend_exactly, kernel)]) > error:
            return None  # not with infinitely many features
    degree = max_degree or truncation_degree(kernel.coefficients, dot_bound=dot_bound)
    choice = None
    for count in sorted(num_features):
        draws = [_draw(inputs[0], sampler, kernel, count, dot_bound) for _ in range(num_draws)]
        measured = measure_error(inputs, [partial(maclaurin_attention, features=f) for f in draws])
        columns = sum(sum(features.widths) for features in draws) // num_draws
        choice = Choice(
            getattr(sampler, "func", sampler).__name__,
            max_degree,
            degree,
            count,
            measured,
            columns,
            features=draws[0],
        )
        if measured <= error:
            break
    return choice


def _draw(
    inputs: Inputs, sampler: Sampler, kernel: Kernel, count: int, dot_bound: float
) -> MaclaurinFeatures:
    features = sampler(
        kernel.coefficients,
        num_features=count,
        num_heads=1,
        head_dim=inputs.query.shape[-1],
        dot_bound=dot_bound,
    )
    tensors = {name: getattr(features, name) for name in ("signs", "weights", "constant")}
    return features._replace(**{name: x.to(inputs.query.device) for name, x in tensors.items()})


def measure_error(inputs: Sequence[Inputs], attends: Sequence[Callable[..., Tensor]]) -> float:
    """Return the largest error of a layer, root mean square over its batches and the draws."""
    squares: dict[int, list[float]] = {}
    for layer, query, key, value, mask, exact in inputs:
        for attend in attends:
            with torch.no_grad():
                out = attend(query, key, value, key_padding_mask=mask)
            error = error_over_signal(out, exact, value, key_padding_mask=mask)
            squares.setdefault(layer, []).append(error**2)
    return max((sum(errors) / len(errors)) ** 0.5 for errors in squares.values())


def measure_own_error(inputs: Sequence[Inputs], features: Sequence[MaclaurinFeatures]) -> float:
    """Return the largest error of a layer by the features that each layer has itself."""
    return max(
        measure_error(
            [each for each in inputs if each.layer == layer],
            [partial(maclaurin_attention, features=own)],
        )
        for layer, own in enumerate(features)
    )
