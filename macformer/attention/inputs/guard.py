"""Keep queries and keys where a kernel converges and its random features are of use."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.ops.clipping import clip_norm


class NormGuard(nn.Module):
    r"""Clip the norms of queries and keys, and so their dot products.

    .. math:: x \leftarrow x \min(1, \rho / \|x\|), \qquad \rho^2 / \sqrt{E} = \mathrm{dot\_bound}

    An addition of this project: the papers define some kernels inside a radius only, and the
    variance of random Maclaurin features grows with every degree that a large dot product brings
    in. Vectors inside the ball pass unchanged.

    Args:
        dot_bound: The bound on :math:`|q \cdot k| / \sqrt{E}`.

    Attributes:
        clipped_share: The share of unpadded keys clipped in the last forward pass; a diagnostic of
            the attention around it.
    """

    clipped_share: Tensor

    def __init__(self, *, head_dim: int, dot_bound: float):
        super().__init__()
        self.dot_bound = dot_bound
        self.max_norm = math.sqrt(dot_bound * math.sqrt(head_dim))
        self.register_buffer("clipped_share", torch.zeros(()), persistent=False)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H S E"]]:
        query, _ = clip_norm(query, max_norm=self.max_norm)
        key, key_norm = clip_norm(key, max_norm=self.max_norm)
        with torch.no_grad():
            clipped = (key_norm[..., 0] > self.max_norm).float()
            if key_padding_mask is None:
                self.clipped_share.copy_(clipped.mean())  # in place: a graph knows the address
            else:
                present = (~key_padding_mask)[:, None, :].expand_as(clipped)
                self.clipped_share.copy_((clipped * present).sum() / present.sum().clamp(min=1))
        return query, key

    def diagnostics(self) -> dict[str, Tensor]:
        return {"clipped_share": self.clipped_share}


def bound_dot(
    *, head_dim: int, input_norm: float | None, guard: float | None
) -> tuple[float, NormGuard | None]:
    r"""Find the bound on :math:`|q \cdot k| / \sqrt{E}`, and the guard that it takes, if any.

    Args:
        input_norm: The norm that queries and keys are known not to exceed; None where nothing is
            known.
        guard: The bound to hold where the norms give none as small; None leaves them alone.

    Returns:
        The bound, infinite where there is none, and the guard, None where none is needed.
    """
    dot_bound = math.inf if input_norm is None else input_norm**2 / math.sqrt(head_dim)
    if guard is None or dot_bound <= guard:
        return dot_bound, None
    return guard, NormGuard(head_dim=head_dim, dot_bound=guard)


def bound_inputs(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    *,
    scale: nn.Module | None,
    guard: NormGuard | None,
    key_padding_mask: Bool[Tensor, "B S"] | None,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H S E"]]:
    """Return queries and keys as a kernel receives them: scaled, then clipped."""
    if scale is not None:
        query, key = scale(query, key)
    if guard is not None:
        query, key = guard(query, key, key_padding_mask=key_padding_mask)
    return query, key
