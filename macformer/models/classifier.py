"""One classifier for every task, single or paired."""

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.models.encoder import SequenceEncoder
from macformer.models.pooling import ClsPooling, MeanPooling


class SequenceClassifier(nn.Module):
    """Encode, pool and classify.

    A pair of documents is a leading dimension: both pass through the same encoder, and the head
    sees both. Where tokens are asked, the head sees the state of each in place of the pooled one.

    Args:
        encoder: Factory ``(embed_dim, num_front_tokens) -> encoder`` from a sequence to its states.
        pooling: Factory ``(embed_dim) -> module`` from states to one vector.
        head: Factory ``(embed_dim) -> module`` from pooled vectors to logits.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        encoder: Callable[..., SequenceEncoder],
        pooling: Callable[..., MeanPooling | ClsPooling],
        head: Callable[..., nn.Module],
    ):
        super().__init__()
        self.pooling = pooling(embed_dim=embed_dim)
        self.encoder = encoder(embed_dim=embed_dim, num_front_tokens=self.pooling.num_front_tokens)
        self.head = head(embed_dim=embed_dim)

    def forward(
        self,
        inputs: Int[Tensor, "B *pair N"] | Float[Tensor, "B *pair N channels"],
        key_padding_mask: Bool[Tensor, "B *pair N"] | None = None,
        places: Int[Tensor, "B Q"] | None = None,
    ) -> Float[Tensor, "B C"] | Float[Tensor, "B Q C"]:
        """Return the logits of each sequence or pair, or those at the places of each sequence.

        Without a mask no sequence has padding.
        """
        rows = inputs.shape[: -2 if inputs.is_floating_point() else -1]
        mask = None if key_padding_mask is None else key_padding_mask.flatten(0, -2)
        states, mask = self.encoder(inputs.flatten(0, len(rows) - 1), mask)
        if places is not None:
            asked = places[..., None] + self.encoder.num_front_tokens
            return self.head(states.take_along_dim(asked, 1))
        pooled = self.pooling(states, mask)
        return self.head(pooled.unflatten(0, rows))
