"""From a sequence to its states: embedding, positions, and layers around any mixer."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from macformer.attention.contract import build


class EncoderLayer(nn.Module):
    r"""One pre-norm layer.

    .. math::
        x \leftarrow x + \mathrm{mix}(\mathrm{LN}(x)), \qquad
        x \leftarrow x + \mathrm{FFN}(\mathrm{LN}(x))

    Args:
        activation: Factory of the nonlinearity of the FFN.
        mixer: Factory of what carries information between positions; see :mod:`macformer.models`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        max_seq_len: int,
        ffn_dim: int,
        activation: Callable[[], nn.Module],
        dropout: float,
        mixer: Callable[..., nn.Module],
    ):
        super().__init__()
        self.mixer_norm = nn.LayerNorm(embed_dim)
        self.mixer = build(mixer, max_seq_len=max_seq_len, embed_dim=embed_dim)
        self.mixer_dropout = nn.Dropout(dropout)
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
        x = x + self.mixer_dropout(self.mixer(self.mixer_norm(x), key_padding_mask))
        return x + self.ffn(self.ffn_norm(x))


class SequenceEncoder(nn.Module):
    """Embed a sequence, add positions, and pass it through layers to a last norm.

    Args:
        max_seq_len: Length that rows are padded to.
        num_front_tokens: Learnt tokens put in front of each sequence, initially zero, for a pooling
            to read.
        activation: Factory of the nonlinearity between the two layers of the FFN.
        embedding: Factory ``(embed_dim) -> module`` from what a batch holds to vectors.
        positions: Factory ``(max_seq_len, embed_dim) -> module`` that adds positions.
        mixer: Factory of the mixer in each layer; see :mod:`macformer.models`.
    """

    front: nn.Parameter | None

    def __init__(
        self,
        *,
        embed_dim: int,
        max_seq_len: int,
        num_front_tokens: int,
        num_layers: int,
        ffn_dim: int,
        activation: Callable[[], nn.Module],
        dropout: float,
        embedding: Callable[..., nn.Module],
        positions: Callable[..., nn.Module],
        mixer: Callable[..., nn.Module],
    ):
        super().__init__()
        longest = max_seq_len + num_front_tokens
        self.num_front_tokens = num_front_tokens
        self.embedding = embedding(embed_dim=embed_dim)
        front = nn.Parameter(torch.zeros(num_front_tokens, embed_dim)) if num_front_tokens else None
        self.register_parameter("front", front)
        self.positions = positions(max_seq_len=longest, embed_dim=embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                embed_dim=embed_dim,
                max_seq_len=longest,
                ffn_dim=ffn_dim,
                activation=activation,
                dropout=dropout,
                mixer=mixer,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dim)

    def state_size(self, seq_len: int) -> int | None:
        """Count the numbers that all layers keep of a sequence; None where a mixer does not say."""
        sizes = [getattr(layer.mixer, "state_size", None) for layer in self.layers]
        length = seq_len + self.num_front_tokens
        known = [size(length) for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def forward(
        self,
        inputs: Int[Tensor, "B N"] | Float[Tensor, "B N channels"],
        key_padding_mask: Bool[Tensor, "B N"] | None = None,
    ) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"] | None]:
        """Return the states and their mask, if there is one, the tokens in front included."""
        x, mask = self.embedding(inputs), key_padding_mask
        if self.front is not None:
            x = torch.cat([self.front.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
            if mask is not None:
                mask = pad(mask, (self.num_front_tokens, 0), value=False)
        x = self.dropout(self.positions(x))
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x), mask
