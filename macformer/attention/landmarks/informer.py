"""Informer's ProbSparse attention (Zhou et al. 2021) and its two measures of a query."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops.precision import accumulation_dtype
from macformer.ops.present import locate, mark_present, query_padding, take
from macformer.ops.sdpa import fused_attention

CHUNK = 2**18  # scores of a head to hold at once


class Informer(nn.Module):
    r"""Apply softmax to the queries that distinguish keys most; average the values for the others.

    .. math::
        o_l = \begin{cases}
            \mathrm{softmax}(q_l k^\top / \sqrt E) v & \text{for the u largest } M_l \\
            \frac1n \sum_s v_s & \text{otherwise}
        \end{cases}
        \qquad M_l = \max_s q_l \cdot k_s - \operatorname{mean}_s q_l \cdot k_s

    with :math:`u = \min(n, c \lceil \ln n \rceil)` of the n present queries and c such that a row
    of the greatest length has about num_queries of them, as in Skyformer's code. The authors' code
    ignores padding, divides the sum over its sampled keys by the number of all keys, and so
    measures little but the maximum.

    Args:
        num_queries: How many queries of the longest sequence attend, but for rounding.
        measure: Factory of M over all queries, for the longest sequence and c.
    """

    joint_queries = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        max_seq_len: int,
        num_queries: int,
        measure: Callable[..., nn.Module],
    ):
        super().__init__()
        self.factor = math.ceil(num_queries / max(math.log(max_seq_len), 1))
        self.measure = measure(max_seq_len=max_seq_len, factor=self.factor)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        q, k, v = blank_padding(query, key, value, key_padding_mask)
        queries = mark_present(q, query_padding(q, k, key_padding_mask))
        keys = mark_present(k, key_padding_mask)
        wide = accumulation_dtype(q)
        with torch.no_grad(), torch.autocast(q.device.type, enabled=False):  # it orders the queries
            measure = self.measure(q.to(wide), k.to(wide), queries=queries, keys=keys)
            measure = measure.masked_fill(~queries[:, None], -math.inf)
            chosen = measure.topk(_quota(query.shape[2], self.factor), dim=-1).indices[..., None]
        mean = v.sum(2, keepdim=True, dtype=wide) / keys.sum(1).clamp(min=1)[:, None, None, None]
        attended = fused_attention(
            q.gather(2, chosen.expand(-1, -1, -1, q.shape[-1])),
            k,
            v,
            attn_mask=keys[:, None, None, :],
        )
        order = torch.arange(chosen.shape[2], device=q.device)
        attends = order < quotas(queries.sum(1), self.factor)[:, None]
        attended = torch.where(attends[:, None, :, None], attended, mean.to(attended.dtype))
        rest = mean.to(attended.dtype).expand(-1, -1, query.shape[2], -1)
        return rest.scatter(2, chosen.expand_as(attended), attended)


class AllKeys(nn.Module):
    """Measure each query against every present key.

    At the lengths of these tasks that takes less time than to gather a sample of keys for each
    query, and it is not random. Scores are held for some queries at once, so that memory is linear.
    """

    def __init__(self, *, max_seq_len: int, factor: int):
        super().__init__()

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        *,
        queries: Bool[Tensor, "B L"],
        keys: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "B H L"]:
        absent = ~keys[:, None, None, :]
        rows = max(1, CHUNK // key.shape[2])
        peaks = [
            (part @ key.mT).masked_fill_(absent, -math.inf).amax(-1)
            for part in query.split(rows, dim=2)
        ]
        mean_key = key.sum(2, keepdim=True) / keys.sum(1).clamp(min=1)[:, None, None, None]
        return torch.cat(peaks, dim=2) - (query @ mean_key.mT)[..., 0]


class SampledKeys(nn.Module):
    r"""Measure each query against keys drawn for it, as in the paper.

    There are :math:`\min(n, c \lceil \ln n \rceil)` of them among n present keys. A query's draws
    belong to its rank among the present ones and never change, where the authors' code draws anew
    at every call, in evaluation, too.
    """

    fractions: Tensor

    def __init__(self, *, max_seq_len: int, factor: int):
        super().__init__()
        self.factor = factor
        num_drawn = max(1, _quota(max_seq_len, factor))  # one for the shape where none is used
        self.register_buffer("fractions", torch.rand(max_seq_len, num_drawn))

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        *,
        queries: Bool[Tensor, "B L"],
        keys: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "B H L"]:
        count = keys.sum(1)[:, None, None]
        ranks = (queries.cumsum(1) - 1).clamp(min=0) % len(self.fractions)
        drawn = (self.fractions[ranks] * count).long()  # a fraction rounded to halves may be 1
        drawn = torch.minimum(drawn, (count - 1).clamp(min=0))
        positions = locate(keys, drawn.flatten(1)).view_as(drawn)
        size = quotas(keys.sum(1), self.factor)[:, None]
        unused = torch.arange(drawn.shape[2], device=key.device) >= size
        rows = max(1, CHUNK // (drawn.shape[2] * key.shape[-1]))
        parts = zip(query.split(rows, dim=2), positions.split(rows, dim=1), strict=True)
        return torch.cat([_measure(q, key, at, unused, size) for q, at in parts], dim=2)


def quotas(count: Int[Tensor, "B"], factor: int) -> Int[Tensor, "B"]:
    r"""Return :math:`\min(n, c \lceil \ln n \rceil)` for each n."""
    logs = count.clamp(min=1).to(torch.float32).log().ceil().long()  # no count is a power of e
    return torch.minimum(count, factor * logs)


def _quota(count: int, factor: int) -> int:
    return min(count, factor * math.ceil(math.log(count)))


def _measure(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    positions: Int[Tensor, "B L U"],
    unused: Bool[Tensor, "B U"],
    size: Int[Tensor, "B 1"],
) -> Float[Tensor, "B H L"]:
    keys = take(key, positions.flatten(1)).unflatten(2, positions.shape[1:])
    scores = (keys @ query[..., None])[..., 0]
    unused = unused[:, None, None, :]
    mean = scores.masked_fill(unused, 0).sum(-1) / size[:, None].clamp(min=1)
    return scores.masked_fill(unused, -math.inf).amax(-1) - mean
