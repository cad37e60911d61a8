"""Address present tokens by their order, wherever padding stands between them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def query_padding(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    key_padding_mask: Bool[Tensor, "B S"] | None,
) -> Bool[Tensor, "B L"] | None:
    """Return the queries' mask: that of the keys where L = S, otherwise every query counts."""
    return key_padding_mask if query.shape[2] == key.shape[2] else None


def mark_present(
    x: Float[Tensor, "B H N E"], padding_mask: Bool[Tensor, "B N"] | None
) -> Bool[Tensor, "B N"]:
    """Return a mask that is True at tokens; without padding at every position."""
    if padding_mask is None:
        return torch.ones(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)
    return ~padding_mask


def locate(present: Bool[Tensor, "B N"], ranks: Int[Tensor, "B R"]) -> Int[Tensor, "B R"]:
    """Return the positions of the present tokens of these ranks, the first one having rank 0.

    A rank beyond the last token gives some position inside the row.
    """
    order = present.cumsum(1)
    return torch.searchsorted(order, ranks + 1).clamp(max=present.shape[1] - 1)


def take(x: Float[Tensor, "B H N E"], positions: Int[Tensor, "B R"]) -> Float[Tensor, "B H R E"]:
    """Gather the rows at these positions, the same for all heads."""
    examples = torch.arange(len(x), device=x.device)[:, None]
    return x.transpose(1, 2)[examples, positions].transpose(1, 2)
