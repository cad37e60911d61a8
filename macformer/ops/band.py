"""A sliding window around each query: as parts of a union, and through explicit features."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.flash import round_up
from macformer.ops.linear import guard_denominator, leave_padding_out
from macformer.ops.precision import without_autocast
from macformer.ops.union import Part, bias, span

TILE = 192  # queries at once: fewer see fewer keys in vain, and the kernel takes them less well
FEATURE_TILE = 64  # the same where the scores are products of features, and stored


def band_parts(
    query: Tensor,
    key: Tensor,
    *,
    allowed: Bool[Tensor, "B S"] | None,
    window: int,
    is_causal: bool,
    with_itself: bool = True,
) -> list[Part]:
    r"""Cover the keys j of query i with :math:`-(W - \lfloor W/2 \rfloor) < j - i \le W/2`.

    Args:
        allowed: False at keys that are left out; None leaves out none.
        window: W.
        is_causal: Whether to leave out the keys after the query.
        with_itself: Whether query i sees key i.
    """
    length, num_keys = query.shape[2], key.shape[2]
    left, right = window - window // 2 - 1, 0 if is_causal else window // 2
    tile = min(TILE, length)
    # the keys of a tile in the kernel's units, and in front at least one that no query sees
    before, after = round_up(left + 1), round_up(tile + right) - tile
    seen = torch.ones(tile, before + tile + after, dtype=torch.bool, device=query.device)
    seen = seen.triu_(before - left).tril_(before + right)
    if not with_itself:
        seen.diagonal(before).fill_(False)
    band = bias(seen, query.dtype)
    columns = None if allowed is None else bias(allowed[:, None, None], query.dtype)
    parts = []
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        first, last = min(max(start - before, 0), num_keys - 1), min(start + tile + after, num_keys)
        offset = max(first - (start - before), 0)  # 0 where all keys lie before the windows
        mask = band[None, None, : stop - start, offset : offset + last - first]
        masks = (mask,) if columns is None else (mask, columns[..., first:last])
        parts.append(Part(span(start, stop), span(first, last), masks))
    return parts


@without_autocast
def windowed_linear_attention(
    phi_q: Float[Tensor, "B H L F"],
    phi_k: Float[Tensor, "B H S F"],
    value: Float[Tensor, "B H S Ev"],
    *,
    window: int,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend as :func:`macformer.ops.linear_attention` does, to the W keys around each query.

    .. math:: o_i = \frac{\sum_j \phi(q_i)^\top \phi(k_j) v_j}{\sum_j \phi(q_i)^\top \phi(k_j)},
        \qquad -(W - \lfloor W/2 \rfloor) < j - i \le \lfloor W/2 \rfloor

    A window has no sum over all keys to share, so that runs of queries see the keys around them
    one by one: time and memory are those of a band of width W.

    Args:
        window: W.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator from zero, with its sign.
    """
    phi_q, phi_k, v = leave_padding_out(phi_q, phi_k, value, key_padding_mask)
    left, right = window - window // 2 - 1, window // 2
    outs = []
    for start in range(0, phi_q.shape[2], FEATURE_TILE):
        stop = min(start + FEATURE_TILE, phi_q.shape[2])
        seen = slice(max(start - left, 0), stop + right)
        weights = phi_q[:, :, start:stop] @ phi_k[:, :, seen].mT
        ahead = torch.arange(weights.shape[-1], device=weights.device) + seen.start - start
        ahead = ahead - torch.arange(stop - start, device=weights.device)[:, None]
        weights = weights.masked_fill((ahead < -left) | (ahead > right), 0)
        denominator = guard_denominator(weights.sum(-1, keepdim=True), eps=eps)
        outs.append(weights @ v[:, :, seen] / denominator)
    return torch.cat(outs, 2).to(value.dtype)
