"""A sliding window as parts of a union: the own block, and a triangle of either neighbour."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from macformer.ops.blocks import count_blocks
from macformer.ops.union import Part, bias, keys_after, keys_before


def to_groups(x: Tensor, block_size: int, num_blocks: int) -> Tensor:
    """Fill a sequence up to whole blocks: ``(B, H, N, X)`` to ``(B H, num_blocks, block, X)``."""
    if short := num_blocks * block_size - x.shape[2]:
        x = pad(x, (0, 0, 0, short))
    return x.flatten(0, 1).unflatten(1, (num_blocks, block_size))


def from_groups(x: Tensor, num_heads: int, length: int) -> Tensor:
    """Undo :func:`to_groups`."""
    return x.flatten(1, 2).unflatten(0, (-1, num_heads))[:, :, :length]


def band_parts(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    *,
    allowed: Bool[Tensor, "B S"],
    window: int,
    is_causal: bool,
) -> list[Part]:
    r"""Cover the keys j of query i with :math:`-(W - \lfloor W/2 \rfloor) < j - i \le W/2`.

    In blocks of half a window the own block lies inside, and each neighbour on one side of a
    diagonal. No key is copied for each block, and no mask holds a row for each query.

    The layout of the union is that of the sequence, ``(B, H, L, X)``.

    Args:
        allowed: False at keys that are left out.
        window: W, at least 2.
        is_causal: Whether to leave out the keys after the query.
    """
    (num_heads, length), size = query.shape[1:3], window // 2
    num_blocks = count_blocks(max(length, key.shape[2]), size)

    def arrange(x: Tensor) -> Tensor:
        return to_groups(x, size, num_blocks)

    def restore(x: Tensor, _: float) -> Tensor:
        return from_groups(x, num_heads, length)

    q, k, v = (arrange(x) for x in (query, key, value))
    columns = arrange(allowed[:, None, :, None].expand(-1, num_heads, -1, -1))
    mask = bias(columns, query.dtype).mT
    parts = [Part(q, k, v, mask, is_causal, restore, arrange)]
    if num_blocks == 1:
        return parts

    def arrange_later(x: Tensor) -> Tensor:
        return arrange(x)[:, 1:]

    def restore_later(x: Tensor, fill: float) -> Tensor:
        return restore(pad(x, (0, 0, 0, 0, 1, 0), value=fill), fill)

    def arrange_earlier(x: Tensor) -> Tensor:
        return arrange(x)[:, :-1]

    def restore_earlier(x: Tensor, fill: float) -> Tensor:
        return restore(pad(x, (0, 0, 0, 0, 0, 1), value=fill), fill)

    distance = 1 - window % 2  # an even window reaches less far to the left
    if size > distance:
        previous = Part(
            q[:, 1:], k[:, :-1], v[:, :-1], mask[:, :-1], False, restore_later, arrange_later
        )
        parts.append(keys_after(previous, distance))
    if not is_causal:
        following = Part(
            q[:, :-1], k[:, 1:], v[:, 1:], mask[:, 1:], False, restore_earlier, arrange_earlier
        )
        parts.append(keys_before(following, 0))
    return parts
