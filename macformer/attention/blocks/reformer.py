"""Reformer: attention among tokens that hash alike (Kitaev et al. 2020, arXiv 2001.04451)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from macformer.attention.contract import blank_padding
from macformer.attention.pool import draw_from
from macformer.ops.blocks import count_blocks, fill_up
from macformer.ops.precision import accumulation_dtype
from macformer.ops.present import mark_present
from macformer.ops.sphere import to_sphere
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
    the first chunk then sees, and lets the number of buckets follow the first batch. That of
    Hugging Face also lays its rounds end to end before it looks back, so that with two of them the
    first chunk of a round sees the last one of the other; with one round it computes what is here.

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
    joint_queries = True
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
        whole = count_blocks(length, self.chunk_size) * self.chunk_size
        query, value = fill_up(query, whole), fill_up(value, whole)
        present = pad(present, (0, whole - length))
        orders = self._sort(query.detach(), present)
        layers = [[self._round(present, order, query.dtype)] for order in orders.unbind(0)]
        out = union_attention(query, to_sphere(query), value, layers, scale=self.logit_scale)
        alone = (present.sum(1) == 1)[:, None, None, None]
        return torch.where(alone, value, out)[:, :, :length]

    def _sort(
        self, query: Float[Tensor, "B H L E"], present: Bool[Tensor, "B L"]
    ) -> Int[Tensor, "rounds B H L"]:
        """Return, for each round, the places of the tokens by bucket and place, padding last."""
        rotations = draw_from(self.pool, self.pool_index, walk=self.training and self.redraw)
        dtype = accumulation_dtype(query)  # rounding would move tokens to other buckets
        with torch.autocast(query.device.type, enabled=False):
            projected = query.to(dtype) @ rotations[:, None].to(dtype)
        buckets = torch.cat([projected, -projected], -1).argmax(-1)
        buckets = buckets.masked_fill(~present[:, None], self.num_buckets)
        return buckets.argsort(dim=-1, stable=True)

    def _round(
        self, present: Bool[Tensor, "B L"], order: Int[Tensor, "B H L"], dtype: torch.dtype
    ) -> Part:
        num_present, m = present.sum(1)[:, None, None], self.chunk_size
        last = (num_present - 1).clamp(min=0) // m
        places = torch.arange(order.shape[-1], device=order.device).view(1, -1, m)
        # before the first chunk is the last, which may not be full; a single one has none before it
        full = (places >= m) | (places < num_present - last * m)
        valid = torch.cat([full & (last > 0), places < num_present], -1)
        allowed = valid[:, :, None] & ~pad(self._itself(order.device), (m, 0))
        chunks = _Chunks(order, m)
        mask = bias(allowed.flatten(0, 1)[:, None], dtype)
        return Part(chunks, _ChunksAndBefore(chunks, last.flatten()), (mask,))

    def _itself(self, device: torch.device) -> Bool[Tensor, "m m"]:
        return torch.eye(self.chunk_size, dtype=torch.bool, device=device)


class _Chunks:
    """Rows sorted and cut into chunks, ``(B num_chunks, H, chunk, X)``.

    To and fro they are gathered, so that nothing is added up row by row.
    """

    def __init__(self, order: Int[Tensor, "B H L"], chunk_size: int):
        batch, num_heads, length = order.shape
        heads = torch.arange(batch * num_heads, device=order.device).view(batch, num_heads, 1)
        self.rows = (heads * length + order).unflatten(-1, (-1, chunk_size)).transpose(1, 2)
        self.to_chunks = self.rows.flatten()
        self.to_places = torch.empty_like(self.to_chunks)
        self.to_places[self.to_chunks] = torch.arange(len(self.to_chunks), device=order.device)

    def read(self, x: Tensor) -> Tensor:
        return (
            x.flatten(0, 2).index_select(0, self.to_chunks).view(*self.rows.shape, -1).flatten(0, 1)
        )

    def write(self, x: Tensor, rows: Tensor) -> None:
        x.copy_(self._put_back(rows).view_as(x))

    def add(self, x: Tensor, rows: Tensor) -> None:
        x.add_(self._put_back(rows).view_as(x))

    def _put_back(self, rows: Tensor) -> Tensor:
        return rows.reshape(-1, rows.shape[-1]).index_select(0, self.to_places)


class _ChunksAndBefore:
    """Each chunk behind the one before it; before the first is the last one of the example."""

    def __init__(self, chunks: _Chunks, last: Int[Tensor, " B"]):
        self.chunks = chunks
        self.examples = torch.arange(len(last), device=last.device)
        self.last = last

    def read(self, x: Tensor) -> Tensor:
        own = self.chunks.read(x).unflatten(0, (len(x), -1))
        return torch.cat([self._before(own), own], 3).flatten(0, 1)

    def add(self, x: Tensor, rows: Tensor) -> None:
        before, own = rows.unflatten(0, (len(x), -1)).chunk(2, 3)
        own = own.clone()
        own[:, :-1] += before[:, 1:]
        own[self.examples, self.last] += before[:, 0]
        self.chunks.add(x, own)

    def _before(self, own: Float[Tensor, "B C H m E"]) -> Float[Tensor, "B C H m E"]:
        return torch.cat([own[self.examples, self.last][:, None], own[:, :-1]], 1)
