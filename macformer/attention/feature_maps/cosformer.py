"""cosFormer (Qin et al. 2022, cosFormer: Rethinking Softmax in Attention)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding, check_length
from macformer.ops import cosine_attention


class CosFormer(nn.Module):
    r"""Attend by rectified dot products that fall off with the distance as a cosine.

    .. math:: o_l = \frac{\sum_s w_{ls} v_s}{\sum_s w_{ls}}, \qquad
        w_{ls} = \mathrm{relu}(q_l)^\top \mathrm{relu}(k_s) \cos\frac{\pi (l - s)}{2 M}

    in linear time, since the cosine of a difference is a sum of two products (equations 10 to 12).
    M is ``max_seq_len``. The authors' code takes the padded length of each batch in its place, so
    that an output depends on how far a batch was padded, and has no padding mask.

    Raises:
        ValueError: If there are more queries or keys than ``max_seq_len``.
    """

    positional = True

    def __init__(self, *, num_heads: int, head_dim: int, max_seq_len: int):
        super().__init__()
        self.max_seq_len = max_seq_len

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep two features for each entry of a key."""
        return 2 * head_dim * (value_dim + 1)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        check_length(query, key, max_seq_len=self.max_seq_len)
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        return cosine_attention(
            query, key, value, horizon=self.max_seq_len, key_padding_mask=key_padding_mask
        )
