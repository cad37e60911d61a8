"""Exact kernelised attention: what random Maclaurin features approximate, in quadratic time."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.attention.inputs.guard import bound_dot, bound_inputs
from macformer.attention.maclaurin.kernels import Kernel, check_bound, in_closed_form
from macformer.ops import guard_denominator
from macformer.ops.precision import accumulation_dtype


class KernelizedAttention(nn.Module):
    r"""Attend with the exact weights of a dot-product kernel.

    .. math::
        o_l = \frac{\sum_s K(t_{ls}) v_s}{\sum_s K(t_{ls})}, \qquad
        t_{ls} = q_l \cdot k_s / \sqrt{E}

    Computed in float32 at least, under autocast too: estimates are measured against it.

    Args:
        kernel: K, in closed form or as the sum of its series.
        input_norm: The norm that queries and keys do not exceed; None where nothing bounds them.
        guard: As in :class:`macformer.attention.RMFA`, so that both compute the same function.
        scale: As there.

    Raises:
        ValueError: If the bound that ``input_norm`` or ``guard`` gives lies beyond the kernel's
            radius. Without a bound inputs are taken as they are.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        kernel: Kernel,
        input_norm: float | None,
        guard: float | None,
        scale: Callable[..., nn.Module] | None,
    ):
        super().__init__()
        self.scale = None if scale is None else scale(num_heads=num_heads, head_dim=head_dim)
        dot_bound, self.guard = bound_dot(
            head_dim=head_dim, input_norm=input_norm if scale is None else None, guard=guard
        )
        if math.isfinite(dot_bound):
            check_bound(kernel, dot_bound=dot_bound)
        self.kernel = in_closed_form(kernel, dot_bound=dot_bound)
        assert self.kernel.closed_form is not None
        self.closed_form = self.kernel.closed_form

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        dtype = accumulation_dtype(value)
        q, k, v = blank_padding(query, key, value, key_padding_mask)
        with torch.autocast(query.device.type, enabled=False):
            q, k = bound_inputs(
                q.to(dtype),
                k.to(dtype),
                scale=self.scale,
                guard=self.guard,
                key_padding_mask=key_padding_mask,
            )
            weights = self.closed_form(q @ k.mT / math.sqrt(q.shape[-1]))
            if key_padding_mask is not None:
                weights = weights.masked_fill(key_padding_mask[:, None, None, :], 0)
            out = weights @ v.to(dtype) / guard_denominator(weights.sum(-1, keepdim=True))
        return out.to(value.dtype)
