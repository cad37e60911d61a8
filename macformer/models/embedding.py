"""Token and position embeddings."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """Look tokens up in a table; id 0 is padding.

    Args:
        std: Standard deviation of the initial table.
    """

    def __init__(self, *, vocab_size: int, embed_dim: int, std: float):
        super().__init__()
        self.table = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, inputs: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        return self.table(inputs)


class PixelEmbedding(nn.Module):
    r"""Project the grey value of a pixel, whose id is that value plus 1, in place of a table.

    .. math:: x = w (\mathrm{id} - 1 - \mathrm{mean}) / \mathrm{std} + b

    Args:
        mean: Of the grey values.
        std: Of the grey values.
    """

    def __init__(self, *, embed_dim: int, mean: float, std: float):
        super().__init__()
        self.mean = mean
        self.std = std
        self.linear = nn.Linear(1, embed_dim)

    def forward(self, inputs: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        grey = (inputs - 1).to(self.linear.weight.dtype)
        return self.linear(((grey - self.mean) / self.std)[..., None])


class LearnedPositions(nn.Module):
    """Add a learnt vector for each position.

    Args:
        std: Standard deviation of the initial table.
    """

    def __init__(self, *, max_seq_len: int, embed_dim: int, std: float):
        super().__init__()
        self.table = nn.Parameter(torch.empty(max_seq_len, embed_dim))
        nn.init.normal_(self.table, std=std)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return x + self.table[: x.shape[1]]


class SinusoidalPositions(nn.Module):
    r"""Add fixed sines and cosines (Vaswani et al. 2017, section 3.5).

    .. math:: p_{n, 2i} = \sin(n / 10000^{2i / D}), \qquad p_{n, 2i + 1} = \cos(n / 10000^{2i / D})
    """

    table: Tensor

    def __init__(self, *, max_seq_len: int, embed_dim: int):
        super().__init__()
        position = torch.arange(max_seq_len)[:, None]
        frequency = torch.exp(torch.arange(0, embed_dim, 2) * (-math.log(10000.0) / embed_dim))
        table = torch.stack([(position * frequency).sin(), (position * frequency).cos()], dim=-1)
        self.register_buffer("table", table.flatten(1)[:, :embed_dim], persistent=False)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return x + self.table[: x.shape[1]]
