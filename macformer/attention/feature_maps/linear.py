"""Linear attention with any feature map (Katharopoulos et al. 2020)."""

from collections.abc import Callable
from itertools import chain

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops import linear_attention
from macformer.ops.precision import accumulation_dtype


class LinearAttention(nn.Module):
    r"""Attend by the inner product of features of queries and keys.

    .. math:: o_l = \frac{\phi_q(q_l)^\top \sum_s \phi_k(k_s) v_s^\top}
        {\phi_q(q_l)^\top \sum_s \phi_k(k_s)}

    Features are computed in float32 at least, or, where a map has weights, in the dtype of these,
    and summed in float32 at least. Long Range Arena's code leaves padded keys in both sums; here
    they leave them.

    Args:
        feature_map: Factory of the map, built once for queries and once for keys; see
            :mod:`macformer.attention.feature_maps.maps`.
    """

    def __init__(self, *, num_heads: int, head_dim: int, feature_map: Callable[..., nn.Module]):
        super().__init__()
        self.num_heads = num_heads
        self.map_query = feature_map(num_heads=num_heads, head_dim=head_dim)
        self.map_key = feature_map(num_heads=num_heads, head_dim=head_dim)

    @torch.no_grad()
    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the sums over keys; the map itself says how many features it has."""
        weight = next(self.map_key.parameters(), torch.empty(0))
        token = weight.new_zeros(1, self.num_heads, 1, head_dim)
        return self.map_key(token).shape[-1] * (value_dim + 1)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        attend = getattr(self.map_query, "attend", None)
        if attend is not None:
            options = {"map_key": self.map_key, "key_padding_mask": key_padding_mask}
            return attend(query, key, value, **options)
        with torch.autocast(query.device.type, enabled=False):
            phi_q, phi_k = _map(self.map_query, query), _map(self.map_key, key)
        return linear_attention(phi_q, phi_k, value, key_padding_mask=key_padding_mask)


def _map(feature_map: nn.Module, x: Tensor) -> Tensor:
    weights = chain(feature_map.parameters(), feature_map.buffers())
    dtypes = (weight.dtype for weight in weights if weight.is_floating_point())
    return feature_map(x.to(next(dtypes, accumulation_dtype(x))))
