"""A label for each token."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.models.encoder import SequenceEncoder


class TokenTagger(nn.Module):
    """Classify each token by its state; all tokens of a batch stand in one row of logits each."""

    def __init__(self, encoder: SequenceEncoder, *, embed_dim: int, num_classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(
        self, inputs: Int[Tensor, "B N"], key_padding_mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B*N C"]:
        states, _ = self.encoder(inputs, key_padding_mask)
        return self.head(states[:, self.encoder.num_front_tokens :]).flatten(0, 1)
