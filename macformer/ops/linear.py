"""Attention in linear time through explicit feature maps."""

from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.precision import accumulation_dtype, without_autocast


def guard_denominator(
    denominator: Float[Tensor, "*shape"], *, eps: float = 1e-6
) -> Float[Tensor, "*shape"]:
    r"""Replace z by copysign(eps, z) where :math:`|z| < eps`, and cut its gradient there."""
    return denominator.abs().clamp(min=eps).copysign(denominator.detach())


@without_autocast
def linear_attention(
    phi_q: Float[Tensor, "B H L F"],
    phi_k: Float[Tensor, "B H S F"],
    value: Float[Tensor, "B H S Ev"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend in time linear in S through feature maps.

    .. math:: o_l = \frac{\phi(q_l)^\top \sum_s \phi(k_s) v_s^\top}{\phi(q_l)^\top \sum_s \phi(k_s)}

    Half-precision inputs are multiplied and summed in float32, and the output is rounded once.

    Args:
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator from zero, with its sign. Maclaurin features may be negative.

    Raises:
        ValueError: If phi_q and phi_k disagree in F.
    """
    if phi_q.shape[-1] != phi_k.shape[-1]:
        raise ValueError(
            "phi_q and phi_k must have the same number of features, "
            f"got {phi_q.shape[-1]} and {phi_k.shape[-1]}"
        )
    phi_q, phi_k, v = leave_padding_out(phi_q, phi_k, value, key_padding_mask)
    denominator = phi_q @ phi_k.sum(-2).unsqueeze(-1)
    return (phi_q @ (phi_k.mT @ v) / guard_denominator(denominator, eps=eps)).to(value.dtype)


def leave_padding_out(
    phi_q: Float[Tensor, "B H L F"],
    phi_k: Float[Tensor, "B H S F"],
    value: Float[Tensor, "B H S Ev"],
    key_padding_mask: Bool[Tensor, "B S"] | None,
) -> tuple[Float[Tensor, "B H L F"], Float[Tensor, "B H S F"], Float[Tensor, "B H S Ev"]]:
    """Return what sums are made of, in float32 at least, with zeros where a key is padding."""
    dtype = accumulation_dtype(value)
    phi_q, phi_k, value = phi_q.to(dtype), phi_k.to(dtype), value.to(dtype)
    if key_padding_mask is None:
        return phi_q, phi_k, value
    padding = key_padding_mask[:, None, :, None]
    return phi_q, phi_k.masked_fill(padding, 0), value.masked_fill(padding, 0)
