"""Attentions of others, to measure against."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import elu, scaled_dot_product_attention

from macformer.attention.maclaurin.kernels import exp
from macformer.attention.maclaurin.samplers import code
from macformer.benchmark import packages, transformers_peers


class PublishedCausal(nn.Module):
    r"""RMFA as its authors published it: sums over the past only, stored for every position.

    .. math:: o_i = \frac{\phi(q_i)^\top \sum_{j \le i} \phi(k_j) v_j^\top}
        {\max(1, \phi(q_i)^\top \sum_{j \le i} \phi(k_j))}

    The running sums form a tensor with an entry for each position, feature and value. The degrees
    follow the authors' law; features of all degrees are multiplied level by level, which is faster
    than their loop over degrees.
    """

    signs: Tensor
    roots: Tensor

    def __init__(self, *, num_heads: int, head_dim: int, num_features: int):
        super().__init__()
        features = code(
            exp().coefficients,
            num_features=num_features,
            num_heads=1,
            head_dim=head_dim,
            dot_bound=1.0,
        )
        self.widths = list(features.widths)
        self.first = math.sqrt(float(features.constant))
        self.register_buffer("signs", features.signs)
        self.register_buffer("roots", features.weights.sqrt())

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        phi_q, phi_k = self._phi(query), self._phi(key)
        state = torch.einsum("bhlf,bhlv->bhlfv", phi_k, value).cumsum(dim=2)
        numerator = torch.einsum("bhlf,bhlfv->bhlv", phi_q, state)
        denominator = torch.einsum("bhlf,bhlf->bhl", phi_q, phi_k.cumsum(dim=2))
        return numerator / denominator.clamp_min(1.0).unsqueeze(-1)

    def _phi(self, x: Tensor) -> Tensor:
        first, *levels = (x @ self.signs.to(x.dtype)).split(self.widths, dim=-1)
        phi = first
        for level in levels:
            alive = level.shape[-1]
            phi = torch.cat([phi[..., :alive] * level, phi[..., alive:]], dim=-1)
        ones = torch.full_like(x[..., :1], self.first)
        return torch.cat([ones, phi * self.roots.to(x.dtype)], dim=-1)


class FlashLinear(nn.Module):
    """Causal linear attention by chunks of flash-linear-attention, with the map elu(x) + 1."""

    def __init__(self, *, num_heads: int, head_dim: int, num_features: int):
        super().__init__()
        from fla.ops.linear_attn import (  # pyright: ignore[reportMissingImports]
            chunk_linear_attn,
        )

        self.attend = chunk_linear_attn

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        phi_q, phi_k = ((elu(x) + 1).transpose(1, 2) for x in (query, key))
        out, _ = self.attend(phi_q, phi_k, value.transpose(1, 2), normalize=True)
        return out.transpose(1, 2)


class SDPA(nn.Module):
    """One of the kernels of torch's scaled_dot_product_attention on a GPU, whichever it prefers."""

    def __init__(self, kernel: SDPBackend, **_: int):
        super().__init__()
        self.kernel = kernel

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(self.kernel):
            return scaled_dot_product_attention(query, key, value)


SDPA_KERNELS = {
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
}
PEERS: dict[str, Callable[..., nn.Module]] = {
    "published_causal": PublishedCausal,
    "performer-pytorch": packages.performer,
    "nystrom-attention": packages.nystrom,
    "linformer-package": packages.linformer,  # the row has its name
    "local-attention": packages.local,
    "reformer-pytorch": packages.Reformer,
    "sinkhorn-transformer": packages.sinkhorn,
    "h-transformer-1d": packages.h_transformer,
    "transformers-longformer": transformers_peers.longformer,
    "transformers-bigbird": transformers_peers.bigbird,
    "transformers-reformer": transformers_peers.reformer,
    "flash-linear-attention": FlashLinear,
    **{name: partial(SDPA, kernel) for name, kernel in SDPA_KERNELS.items()},
}
