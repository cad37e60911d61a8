"""The mixer of a transformer: any attention over heads."""

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import build, state_size


class MultiheadAttention(nn.Module):
    """Project to heads, attend, and project back.

    Args:
        qkv_dim: Width of all heads together.
        bias: Whether the four projections add a bias.
        attention: Factory of the attention over heads; see :mod:`macformer.attention`.

    Raises:
        ValueError: If qkv_dim is not a multiple of num_heads.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        max_seq_len: int,
        num_heads: int,
        qkv_dim: int,
        bias: bool,
        attention: Callable[..., nn.Module],
    ):
        super().__init__()
        if qkv_dim % num_heads:
            raise ValueError(f"qkv_dim {qkv_dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.in_proj = nn.Linear(embed_dim, 3 * qkv_dim, bias=bias)
        self.out_proj = nn.Linear(qkv_dim, embed_dim, bias=bias)
        self.attention = build(
            attention,
            max_seq_len=max_seq_len,
            num_heads=num_heads,
            head_dim=qkv_dim // num_heads,
        )
        for projection in self.in_proj.weight.chunk(3):
            nn.init.xavier_uniform_(projection.data)

    def state_size(self, seq_len: int) -> int:
        """Count the numbers that all heads keep of a sequence to answer queries."""
        dim = self.out_proj.in_features // self.num_heads
        return self.num_heads * state_size(
            self.attention, seq_len=seq_len, head_dim=dim, value_dim=dim
        )

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N D"]:
        heads = self.in_proj(x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        out = self.attention(query, key, value, key_padding_mask=key_padding_mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))
