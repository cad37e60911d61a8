"""Synthesizers: attention whose weights no query meets a key for (Tay et al. 2021, Synthesizer)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding, check_length
from macformer.ops.flash import to_one_width
from macformer.ops.precision import accumulation_dtype
from macformer.ops.sdpa import fused_attention


class RandomSynthesizer(nn.Module):
    r"""Attend by a fixed random matrix of scores, the same for all inputs.

    .. math:: o = \mathrm{softmax}(R_1 R_2^\top) v

    the paper's factorised random synthesizer, with its factors fixed as in its "fixed random" row:
    learnt ones would make the model several times larger. What Long Range
    Arena's code runs under this name adds a learnt matrix of all pairs to softmax's own scores.
    Quadratic in time, as every synthesizer is; memory is that of softmax.

    Args:
        rank: Columns of the factors, drawn so that scores have unit variance.
    """

    positional = True
    query_factor: Tensor
    key_factor: Tensor

    def __init__(self, *, num_heads: int, head_dim: int, max_seq_len: int, rank: int):
        super().__init__()
        std = rank**-0.25
        for name in ("query_factor", "key_factor"):
            self.register_buffer(name, std * torch.randn(num_heads, max_seq_len, rank))

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the values: no key is looked at."""
        return seq_len * value_dim

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        _, _, value = blank_padding(query, key, value, key_padding_mask)
        check_length(query, key, max_seq_len=self.query_factor.shape[1])
        batch = len(value)
        q = self.query_factor[:, : query.shape[2]].to(value.dtype).expand(batch, -1, -1, -1)
        k = self.key_factor[:, : key.shape[2]].to(value.dtype).expand(batch, -1, -1, -1)
        attn_mask = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
        q, k, v = to_one_width(q, k, value)  # else torch stores the weights
        out = fused_attention(q, k, v, attn_mask=attn_mask, scale=1.0)
        return out[..., : value.shape[-1]]


class DenseSynthesizer(nn.Module):
    r"""Attend by scores that each query makes by itself, one for each position.

    .. math:: o_l = \sum_s \mathrm{softmax}_s(a_{l, \lfloor s / b \rfloor} c_{l, s \bmod b}) v_s,
        \qquad a_l = A \, \mathrm{relu}(q_l), \quad c_l = C \, \mathrm{relu}(q_l)

    the paper's factorised dense synthesizer, with the query's projection as the first layer of its
    perceptron. Quadratic in time and in memory.
    """

    positional = True

    def __init__(self, *, num_heads: int, head_dim: int, max_seq_len: int):
        super().__init__()
        self.max_seq_len = max_seq_len
        self.width = math.isqrt(max_seq_len - 1) + 1  # b
        self.height = -(-max_seq_len // self.width)
        bound = head_dim**-0.5  # as torch.nn.Linear's
        self.blocks, self.places = (
            nn.Parameter(torch.empty(num_heads, head_dim, size).uniform_(-bound, bound))
            for size in (self.height, self.width)
        )

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the values: no key is looked at."""
        return seq_len * value_dim

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        check_length(query, key, max_seq_len=self.max_seq_len)
        hidden = query.relu().to(accumulation_dtype(query))
        blocks, places = (hidden @ w.to(hidden.dtype) for w in (self.blocks, self.places))
        scores = (blocks[..., :, None] * places[..., None, :]).flatten(-2)[..., : key.shape[2]]
        scores = scores.to(hidden.dtype)  # halves under autocast
        if key_padding_mask is not None:
            scores = scores.masked_fill(key_padding_mask[:, None, None, :], -torch.inf)
        weights = scores.softmax(-1)
        if key_padding_mask is not None:  # an example without keys has no weights
            weights = weights.masked_fill(key_padding_mask.all(-1)[:, None, None, None], 0)
        return (weights.to(value.dtype) @ value).to(value.dtype)
