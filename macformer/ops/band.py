"""A sliding window as parts of a union, each a run of queries and the keys around it."""

import torch
from jaxtyping import Bool
from torch import Tensor

from macformer.ops.flash import round_up
from macformer.ops.union import Part, bias, span

TILE = 192  # queries at once: fewer see fewer keys in vain, and the kernel takes them less well


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
