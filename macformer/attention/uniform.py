"""Uniform attention: the control that shows what an attention adds."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import check_mask
from macformer.ops.precision import accumulation_dtype


class UniformAttention(nn.Module):
    r"""Average the values, whatever the query.

    .. math:: o_l = \frac{1}{S} \sum_s v_s

    Under ppSBN the weights of every kernel are close to constant, so a row of the tables means
    something only by its distance from this one.
    """

    def __init__(self, *, num_heads: int, head_dim: int):
        super().__init__()

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the mean."""
        return value_dim

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        if key_padding_mask is None:
            mean = value.mean(dim=2, keepdim=True)
        else:
            check_mask(key_padding_mask, key)
            present = ~key_padding_mask[:, None, :, None]
            count = present.sum(dim=2, keepdim=True).clamp(min=1)
            blanked = torch.where(present, value, 0)
            mean = blanked.sum(dim=2, keepdim=True, dtype=accumulation_dtype(value)) / count
        return mean.to(value.dtype).expand(-1, -1, query.shape[2], -1)
