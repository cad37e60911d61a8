"""Token and position embeddings."""

import math
from collections.abc import Sequence

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

    A hidden pixel, id 0, is :math:`b + m`: the mean, marked by what pretraining learns, at first
    zero. Its own formula would make it all but black.

    Args:
        mean: Of the grey values.
        std: Of the grey values.
    """

    def __init__(self, *, embed_dim: int, mean: float, std: float):
        super().__init__()
        self.mean = mean
        self.std = std
        self.linear = nn.Linear(1, embed_dim)
        self.mark = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, inputs: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        hidden = inputs == 0
        grey = (inputs - 1).to(self.linear.weight.dtype)
        grey = ((grey - self.mean) / self.std).masked_fill(hidden, 0)
        x = self.linear(grey[..., None])
        return torch.where(hidden[..., None], x + self.mark.to(x.dtype), x)


class SeriesEmbedding(nn.Module):
    r"""Project the values of all channels over the steps of a patch.

    .. math:: x = W \left[\frac{v - \mathrm{mean}}{\mathrm{std}}; m\right] + b

    A missing value, NaN, counts as the mean. With ``missing="indicator"`` m marks these values by
    ones; otherwise it is left out.

    Args:
        mean: Of each channel.
        std: Of each channel.
        patch: Steps of a token, whose values come step by step.
        missing: That of the task: "indicator", or "refuse" where no value is missing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        embed_dim: int,
        mean: Sequence[float],
        std: Sequence[float],
        patch: int,
        missing: str,
    ):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(list(values)).repeat(patch), persistent=False)
        self.mark_missing = missing == "indicator"
        self.linear = nn.Linear(len(self.mean) * (1 + self.mark_missing), embed_dim)

    def forward(self, inputs: Float[Tensor, "B N channels"]) -> Float[Tensor, "B N D"]:
        missing = inputs.isnan()
        values = ((inputs - self.mean) / self.std).masked_fill(missing, 0)
        if self.mark_missing:
            values = torch.cat([values, missing.to(values.dtype)], dim=-1)
        return self.linear(values.to(self.linear.weight.dtype))


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
