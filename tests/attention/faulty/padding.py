"""Faults of padding, most of them those of published code."""

import torch
from faulty.sound import Sound
from torch.nn.functional import scaled_dot_product_attention, softplus


class MasksValuesOnly(Sound):
    """Padded keys stay in the denominator."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[:, None, :, None], 0)
        return super().forward(query, key, value)


class ZeroKeysStay(Sound):
    """Padded keys become zero vectors, whose features are counted."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        if key_padding_mask is not None:
            padding = key_padding_mask[:, None, :, None]
            query, key, value = (x.masked_fill(padding, 0) for x in (query, key, value))
        return super().forward(query, key, value)


class CountsPaddingInTraining(ZeroKeysStay):
    """A mask that a module heeds in evaluation alone."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        if self.training:
            return super().forward(query, key, value, key_padding_mask=key_padding_mask)
        return Sound.forward(self, query, key, value, key_padding_mask=key_padding_mask)


class LeaksNaN(Sound):
    """Weights of zero times what is not finite."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        phi_q, phi_k = self.phi(query), self.phi(key)
        if key_padding_mask is not None:
            phi_k = phi_k * ~key_padding_mask[:, None, :, None]
        return phi_q @ (phi_k.mT @ value) / (phi_q @ phi_k.sum(-2)[..., None])


class LeaksBackward(Sound):
    """The output is right; the gradient at padded keys is zero times what is not finite."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        phi_q, phi_k = self.phi(query), self.phi(key)
        if key_padding_mask is not None:
            padding = key_padding_mask[:, None, :, None]
            phi_k, value = phi_k.masked_fill(padding, 0), value.masked_fill(padding, 0)
        return phi_q @ (phi_k.mT @ value) / (phi_q @ phi_k.sum(-2)[..., None])


class LearnsFromMasksAlone(Sound):
    """Without a mask the output is right, and keys get no gradient."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        if key_padding_mask is None:
            key = key.detach()
        return super().forward(query, key, value, key_padding_mask=key_padding_mask)


class StatisticsOfPaddedQueries(Sound):
    """Queries are centred by the mean over all of them, padded ones too."""

    self_attention_only = True

    def forward(self, query, key, value, *, key_padding_mask=None):
        if query.shape[2] != key.shape[2]:
            raise ValueError(f"{query.shape[2]} queries and {key.shape[2]} keys")
        query = query - query.mean(2, keepdim=True)
        return super().forward(query, key, value, key_padding_mask=key_padding_mask)


class ShortcutOnPaddedLength(Sound):
    """Up to so many positions it is softmax attention, and padding counts as positions."""

    def __init__(self, *, num_landmarks, **kwargs):
        super().__init__(**kwargs)
        self.num_landmarks = num_landmarks

    def forward(self, query, key, value, *, key_padding_mask=None):
        if key.shape[2] > self.num_landmarks:
            return super().forward(query, key, value, key_padding_mask=key_padding_mask)
        mask = None if key_padding_mask is None else ~key_padding_mask[:, None, None]
        return scaled_dot_product_attention(query, key, value, attn_mask=mask)


class StridedLocal(Sound):
    """Groups of every third position, counted from the padded length, in place of neighbours."""

    positional = True

    def forward(self, query, key, value, *, key_padding_mask=None):
        num_blocks = -(-key.shape[2] // 3)
        i, j = (torch.arange(x.shape[2]) for x in (query, key))
        allowed = (i[:, None] % num_blocks == j % num_blocks)[None, None]
        if key_padding_mask is not None:
            allowed = allowed & ~key_padding_mask[:, None, None]
            value = value.masked_fill(key_padding_mask[:, None, :, None], 0)
        weights = softplus(query @ key.mT).masked_fill(~allowed, 0)
        return weights @ value / weights.sum(-1, keepdim=True).clamp(min=1e-6)
