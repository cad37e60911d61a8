"""Linear attention through random features, as it should be; the faults differ from it."""

import math

import torch
from torch import nn
from torch.nn.functional import softplus

from macformer.attention import Kernel, blank_padding


class Sound(nn.Module):
    def __init__(self, *, num_heads, head_dim, max_seq_len, num_features):
        super().__init__()
        self.register_buffer("projection", torch.randn(head_dim, num_features))

    def phi(self, x):
        return softplus(x @ self.projection)

    def forward(self, query, key, value, *, key_padding_mask=None):
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        phi_q, phi_k = self.phi(query), self.phi(key)
        if key_padding_mask is not None:
            phi_k = phi_k.masked_fill(key_padding_mask[:, None, :, None], 0)
        denominator = phi_q @ phi_k.sum(-2)[..., None]
        return phi_q @ (phi_k.mT @ value) / denominator.clamp(min=1e-6)


def cosh():
    """Return the hyperbolic cosine."""
    return Kernel("cosh", lambda n: 0.0 if n % 2 else 1 / math.factorial(n), torch.cosh, math.inf)
