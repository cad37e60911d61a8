"""Reformer: attention among tokens that hash alike (Kitaev et al. 2020, arXiv 2001.04451)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from macformer.attention.contract import blank_padding
from macformer.attention.inputs.sphere import to_sphere
from macformer.ops.blocks import count_blocks
from macformer.ops.permute import permute_rows
from macformer.ops.present import mark_present
from macformer.ops.union import Part, bias, union_attention


class Reformer(nn.Module):
    r"""Attend within chunks of the tokens sorted by hash, in several rounds.

    .. math::
        o_i = \frac{\sum_h \sum_{j \in N_h(i)} e^{s_{ij}} v_j}
        {\sum_h \sum_{j \in N_h(i)} e^{s_{ij}}},
        \qquad s_{ij} = \sigma \, q_i \cdot \frac{q_j}{\|q_j\|}

    Queries serve as keys, and ``key`` is not used. In round h the present tokens of an example are
    sorted by bucket, :math:`\arg\max [q R_h, -q R_h]`, and place, and cut into chunks;
    :math:`N_h(i)` are the tokens of i's chunk and of the one before, the last one for the first,
    without i itself unless it is alone. Published code sorts padding in a chunk of its own, which
    the first chunk then sees, and lets the number of buckets follow the first batch.

    Args:
        num_buckets: Even.
        num_rounds: Of hashing.
        chunk_size: In tokens.
        logit_scale: :math:`\sigma`.
        pool_size: Draws of R in the pool that training walks through; evaluation uses the first.
        redraw: Whether training walks or stays.

    Raises:
        ValueError: If the number of buckets is odd, or queries and keys differ in number.
    """

    self_attention_only = True
    pool: Tensor
    pool_index: Tensor

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        num_buckets: int,
        num_rounds: int,
        chunk_size: int,
        logit_scale: float,
        pool_size: int,
        redraw: bool,
    ):
        super().__init__()
        if num_buckets < 2 or num_buckets % 2:
            raise ValueError(f"num_buckets must be even, got {num_buckets}")
        self.num_buckets = num_buckets
        self.chunk_size = chunk_size
        self.logit_scale = logit_scale
        self.redraw = redraw
        shape = (pool_size, num_rounds, num_heads, head_dim, num_buckets // 2)
        self.register_buffer("pool", torch.randn(shape))
        self.register_buffer("pool_index", torch.zeros(1, dtype=torch.long))

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        length = query.shape[2]
        if length != key.shape[2]:
            raise ValueError(f"queries are keys, but there are {length} and {key.shape[2]}")
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        present = mark_present(key, key_padding_mask)
        if short := count_blocks(length, self.chunk_size) * self.chunk_size - length:
            query, value = (pad(x, (0, 0, 0, short)) for x in (query, value))
            present = pad(present, (0, short))
        orders = self._sort(query.detach(), present)
        parts = [self._round(query, value, present, order) for order in orders.unbind(0)]
        out = union_attention(parts, scale=self.logit_scale)
        alone = (present.sum(1) == 1)[:, None, None, None]
        return torch.where(alone, value, out)[:, :, :length]

    def _sort(
        self, query: Float[Tensor, "B H L E"], present: Bool[Tensor, "B L"]
    ) -> Int[Tensor, "rounds B H L"]:
        """Return, for each round, the places of the tokens by bucket and place, padding last."""
        if self.training and self.redraw:
            self.pool_index.add_(1).remainder_(len(self.pool))
            rotations = self.pool.index_select(0, self.pool_index)[0]
        else:
            rotations = self.pool[0]
        projected = query @ rotations[:, None].to(query.dtype)
        buckets = torch.cat([projected, -projected], -1).argmax(-1)
        buckets = buckets.masked_fill(~present[:, None], self.num_buckets)
        return buckets.argsort(dim=-1, stable=True)

    def _round(
        self, query: Tensor, value: Tensor, present: Tensor, order: Int[Tensor, "B H L"]
    ) -> Part:
        arrange, restore, permute = _layout(order, self.chunk_size)
        x, v = permute(query), permute(value)
        k = to_sphere(x)
        num_present, m = present.sum(1)[:, None, None], self.chunk_size
        last = (num_present - 1).clamp(min=0) // m
        k, v = (torch.cat([_chunk_before(y, last), y], 3).flatten(0, 1) for y in (k, v))

        places = torch.arange(x.shape[1] * m, device=x.device).view(1, -1, m)
        # before the first chunk is the last, which may not be full; a single one has none before it
        full = (places >= m) | (places < num_present - last * m)
        valid = torch.cat([full & (last > 0), places < num_present], -1)
        allowed = valid[:, :, None] & ~pad(self._itself(x.device), (m, 0))
        mask = bias(allowed.flatten(0, 1)[:, None], x.dtype)
        return Part(x.flatten(0, 1), k, v, mask, False, restore, arrange)

    def _itself(self, device: torch.device) -> Bool[Tensor, "m m"]:
        return torch.eye(self.chunk_size, dtype=torch.bool, device=device)


def _layout(
    order: Int[Tensor, "B H L"], chunk_size: int
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, float], Tensor], Callable]:
    """Return how to sort rows into chunks, how to put them back, and the former with gradients.

    Sorted rows are ``(B num_chunks, H, chunk, X)``, those with gradients have B by itself.
    """
    batch, num_heads, length = order.shape
    first = torch.arange(batch * num_heads, device=order.device).view(batch, num_heads, 1) * length
    rows = (first + order).unflatten(-1, (-1, chunk_size)).transpose(1, 2)
    to_chunks = rows.flatten()
    to_places = torch.empty_like(to_chunks)
    to_places[to_chunks] = torch.arange(len(to_chunks), device=order.device)

    def arrange(x: Tensor) -> Tensor:
        x = x.reshape(-1, x.shape[-1]).index_select(0, to_chunks)
        return x.view(*rows.shape, -1).flatten(0, 1)

    def restore(x: Tensor, _: float) -> Tensor:
        x = x.reshape(-1, x.shape[-1]).index_select(0, to_places)
        return x.view(*order.shape, -1)

    def permute(x: Tensor) -> Tensor:
        x = permute_rows(x.reshape(-1, x.shape[-1]), to_chunks, to_places)
        return x.view(*rows.shape, -1)

    return arrange, restore, permute


def _chunk_before(x: Float[Tensor, "B C H m E"], last: Int[Tensor, "B 1 1"]) -> Tensor:
    """Return the chunk before each; the last one of the example for the first."""
    examples = torch.arange(len(x), device=x.device)
    return torch.cat([x[examples, last.flatten()][:, None], x[:, :-1]], 1)
