"""A pre-norm transformer encoder layer around any attention."""

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import build


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
        num_heads: int,
        qkv_dim: int,
        bias: bool,
        max_seq_len: int,
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
            num_heads=num_heads,
            head_dim=qkv_dim // num_heads,
            max_seq_len=max_seq_len,
        )
        for projection in self.in_proj.weight.chunk(3):
            nn.init.xavier_uniform_(projection.data)

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N D"]:
        heads = self.in_proj(x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        out = self.attention(query, key, value, key_padding_mask=key_padding_mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    r"""One pre-norm layer.

    .. math::
        x \leftarrow x + \mathrm{MHA}(\mathrm{LN}(x)), \qquad
        x \leftarrow x + \mathrm{FFN}(\mathrm{LN}(x))

    Args:
        qkv_bias: Whether the projections around the attention add a bias.
        activation: Factory of the nonlinearity of the FFN.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        qkv_dim: int,
        qkv_bias: bool,
        ffn_dim: int,
        activation: Callable[[], nn.Module],
        dropout: float,
        max_seq_len: int,
        attention: Callable[..., nn.Module],
    ):
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = MultiheadAttention(
            embed_dim=embed_dim,
            num_heads=num_heads,
            qkv_dim=qkv_dim,
            bias=qkv_bias,
            max_seq_len=max_seq_len,
            attention=attention,
        )
        self.attention_dropout = nn.Dropout(dropout)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.ffn = nn.Sequential(
            nn.Linear(embed_dim, ffn_dim),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(ffn_dim, embed_dim),
            nn.Dropout(dropout),
        )

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attention_dropout(self.attention(self.attention_norm(x), key_padding_mask))
        return x + self.ffn(self.ffn_norm(x))
