"""Mixers, which have no queries, keys and values: sound ones, and faults."""

import torch
from torch import nn


class Sound(nn.Module):
    """A convolution over positions that sees zeros at padding."""

    def __init__(self, *, embed_dim):
        super().__init__()
        self.convolution = nn.Conv1d(embed_dim, embed_dim, 3, padding="same", groups=embed_dim)

    def forward(self, x, key_padding_mask=None):
        if key_padding_mask is not None:
            x = x.masked_fill(key_padding_mask[..., None], 0)
        return self.convolution(x.mT).mT


class InHeads(Sound):
    """As sound, for widths that eight heads can share."""

    def __init__(self, *, embed_dim):
        super().__init__(embed_dim=embed_dim)
        self.convolution = nn.Conv1d(embed_dim, embed_dim, 3, padding="same", groups=8)


class ConvolvesPadding(Sound):
    """What stands at padding reaches the last tokens."""

    def forward(self, x, key_padding_mask=None):
        return super().forward(x)


class ConvolvesPaddingInTraining(Sound):
    def forward(self, x, key_padding_mask=None):
        return super().forward(x, None if self.training else key_padding_mask)


class CountsPaddingInTraining(Sound):
    """A mean over positions, padding among them."""

    def forward(self, x, key_padding_mask=None):
        out = super().forward(x, key_padding_mask)
        if not self.training:
            return out
        present = 1 if key_padding_mask is None else ~key_padding_mask[..., None]
        return out - (out * present).mean(1, keepdim=True)


class ReseedsAtEvaluation(Sound):
    def forward(self, x, key_padding_mask=None):
        if not self.training:
            torch.manual_seed(1)
        return super().forward(x, key_padding_mask)


class ReseedsInTraining(Sound):
    def forward(self, x, key_padding_mask=None):
        if self.training:
            torch.manual_seed(1)
        return super().forward(x, key_padding_mask)


class StatisticsOfBatch(Sound):
    """Examples are centred by their common mean."""

    def forward(self, x, key_padding_mask=None):
        out = super().forward(x, key_padding_mask)
        return out - out.mean(0, keepdim=True)


class ReversesPadded(Sound):
    """Runs backwards from the end of the padding, not of the tokens."""

    def forward(self, x, key_padding_mask=None):
        out = super().forward(x, key_padding_mask)
        return out + out.flip(1)


class Detached(Sound):
    """A product whose second factor passes no gradient back."""

    def forward(self, x, key_padding_mask=None):
        out = super().forward(x, key_padding_mask)
        return out * out.detach()
