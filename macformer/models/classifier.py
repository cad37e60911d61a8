"""One transformer classifier for every task, single or paired."""

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.models.encoder import EncoderLayer
from macformer.models.pooling import ClsPooling, MeanPooling


class SequenceClassifier(nn.Module):
    """Embed, encode, pool and classify.

    A pair of documents is a leading dimension: both pass through the same encoder, and the head
    sees both.

    Args:
        max_seq_len: Length that rows are padded to.
        qkv_dim: Width of all heads together.
        qkv_bias: Whether the projections around the attention add a bias.
        activation: Factory of the nonlinearity between the two layers of the FFN.
        attention: Factory of the attention in each layer; see :mod:`macformer.attention`.
        embedding: Factory ``(embed_dim) -> module`` from ids to vectors.
        positions: Factory ``(max_seq_len, embed_dim) -> module`` that adds positions.
        pooling: Factory ``(embed_dim) -> module`` from states to one vector.
        head: Factory ``(embed_dim) -> module`` from pooled vectors to logits.
    """

    def __init__(
        self,
        *,
        max_seq_len: int,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        qkv_dim: int,
        qkv_bias: bool,
        ffn_dim: int,
        activation: Callable[[], nn.Module],
        dropout: float,
        attention: Callable[..., nn.Module],
        embedding: Callable[..., nn.Module],
        positions: Callable[..., nn.Module],
        pooling: Callable[..., MeanPooling | ClsPooling],
        head: Callable[..., nn.Module],
    ):
        super().__init__()
        self.embedding = embedding(embed_dim=embed_dim)
        self.pooling = pooling(embed_dim=embed_dim)
        longest = max_seq_len + self.pooling.num_tokens
        self.positions = positions(max_seq_len=longest, embed_dim=embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                embed_dim=embed_dim,
                num_heads=num_heads,
                qkv_dim=qkv_dim,
                qkv_bias=qkv_bias,
                ffn_dim=ffn_dim,
                activation=activation,
                dropout=dropout,
                max_seq_len=longest,
                attention=attention,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.head = head(embed_dim=embed_dim)

    def forward(
        self, inputs: Int[Tensor, "B *pair N"], key_padding_mask: Bool[Tensor, "B *pair N"]
    ) -> Float[Tensor, "B C"]:
        mask = key_padding_mask.flatten(0, -2)
        x = self.embedding(inputs.flatten(0, -2))
        x, mask = self.pooling.extend(x, mask)
        x = self.dropout(self.positions(x))
        for layer in self.layers:
            x = layer(x, mask)
        pooled = self.pooling(self.norm(x), mask)
        return self.head(pooled.unflatten(0, inputs.shape[:-1]))
