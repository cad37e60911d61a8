"""Attentions of others, to measure against."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from macformer.attention.maclaurin import exp
from macformer.attention.samplers import code


class PublishedCausal(nn.Module):
    r"""RMFA as its authors published it: sums over the past only, stored for every position.

    .. math:: o_i = \frac{\phi(q_i)^\top \sum_{j \le i} \phi(k_j) v_j^\top}
        {\max(1, \phi(q_i)^\top \sum_{j \le i} \phi(k_j))}

    The running sums form a tensor with an entry for each position, feature and value. The degrees
    follow the authors' law; features of all degrees are multiplied level by level, which is faster
    than their loop over degrees.
    """

    def __init__(self, *, head_dim: int, num_features: int):
        super().__init__()
        self.features = code(
            exp, num_features=num_features, num_heads=1, head_dim=head_dim, dot_bound=1.0
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        phi_q, phi_k = self._phi(query), self._phi(key)
        state = torch.einsum("bhlf,bhlv->bhlfv", phi_k, value).cumsum(dim=2)
        numerator = torch.einsum("bhlf,bhlfv->bhlv", phi_q, state)
        denominator = torch.einsum("bhlf,bhlf->bhl", phi_q, phi_k.cumsum(dim=2))
        return numerator / denominator.clamp_min(1.0).unsqueeze(-1)

    def _phi(self, x: Tensor) -> Tensor:
        first, *levels = (x @ self.features.signs.to(x)).split(list(self.features.widths), dim=-1)
        phi = first
        for level in levels:
            alive = level.shape[-1]
            phi = torch.cat([phi[..., :alive] * level, phi[..., alive:]], dim=-1)
        ones = torch.full_like(x[..., :1], math.sqrt(float(self.features.constant)))
        return torch.cat([ones, phi * self.features.weights.to(x).sqrt()], dim=-1)


def performer(*, head_dim: int, num_features: int) -> nn.Module:
    """FAVOR+ of the package performer-pytorch."""
    from performer_pytorch import FastAttention  # pyright: ignore[reportMissingImports]

    return FastAttention(dim_heads=head_dim, nb_features=num_features, causal=False)


PEERS: dict[str, Callable[..., nn.Module]] = {
    "published_causal": PublishedCausal,
    "performer-pytorch": performer,
}
