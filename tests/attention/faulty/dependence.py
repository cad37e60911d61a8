"""Faults of what an output depends on, most of them those of published code."""

import torch
from faulty.sound import Sound
from torch.autograd import forward_ad


class Transposed(Sound):
    """Features and positions change places."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        return super().forward(query, key, value, key_padding_mask=key_padding_mask).mT


class ReshapedHeads(Sound):
    """(B, H, L, E) is read as (B, L, H, E) without a transpose, so that tokens mix."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        out = super().forward(query, key, value, key_padding_mask=key_padding_mask)
        batch, heads, length, dim = out.shape
        return out.reshape(batch, length, heads, dim).transpose(1, 2)


class SubtractsBatchMean(Sound):
    """Keys are centred by the mean over examples."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        key = key - key.mean(0, keepdim=True)
        return super().forward(query, key, value, key_padding_mask=key_padding_mask)


class StabiliserOfTheBatch(Sound):
    """One maximum over the batch keeps the exponent small, and lets small examples vanish."""

    def phi(self, x):
        logits = x @ self.projection - x.square().sum(-1, keepdim=True) / 2
        return (logits - logits.max()).exp() + 1e-4


class Detached(Sound):
    """No gradient reaches the keys."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        return super().forward(query, key.detach(), value, key_padding_mask=key_padding_mask)


class LosesTangents(Sound):
    """Doubles by an operator that knows reverse mode alone."""

    def phi(self, x):
        return super().phi(double(x))


@torch.library.custom_op("faulty::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


double.register_fake(torch.empty_like)
double.register_autograd(lambda ctx, grad: 2 * grad)


class BreaksOnTangents(Sound):
    """Fails in forward mode by a mistake of its own, which is no refusal."""

    def phi(self, x):
        if forward_ad.unpack_dual(x).tangent is not None:
            x = x[..., 1:]  # no longer as wide as the projection
        return super().phi(x)


class RedrawsAtEvaluation(Sound):
    """New features at every call."""

    def phi(self, x):
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))
        projection = torch.randn(self.projection.shape, generator=generator, dtype=x.dtype)
        return (x @ projection).exp()


class ReseedsAtEvaluation(Sound):
    """The same output every time, and the same of all that draw behind it."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        if not self.training:
            torch.manual_seed(1)
        return super().forward(query, key, value, key_padding_mask=key_padding_mask)


class ReseedsInTraining(Sound):
    """All that draw behind it, such as dropout, draw the same at every step."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        if self.training:
            torch.manual_seed(1)
        return super().forward(query, key, value, key_padding_mask=key_padding_mask)


class NeedlesslyPositional(Sound):
    """Says that places matter, and does not look at them."""

    positional = True


class NeedlesslySelfAttentionOnly(Sound):
    """Says that L = S, and takes anything."""

    self_attention_only = True
