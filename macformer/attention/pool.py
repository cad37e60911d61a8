"""A pool of random draws, made once, that training walks through."""

from jaxtyping import Int, Shaped
from torch import Tensor


def draw_from(
    pool: Shaped[Tensor, "P *draw"], index: Int[Tensor, "1"], *, walk: bool
) -> Shaped[Tensor, "*draw"]:
    """Return the next draw of a pool, or its first one.

    The index lies on the device and advances there, so that a captured step walks on as well.

    Args:
        index: The entry that was drawn last; moved on in place.
        walk: Whether to move on; the first draw and an index that stays, otherwise.
    """
    if not walk:
        return pool[0]
    index.add_(1).remainder_(len(pool))
    return pool.index_select(0, index)[0]
