r"""ppSBN: pre-post scaling batch normalisation around any attention (Macformer, arXiv 2408.11656).

The pre stage puts queries and keys on the unit sphere, where dot-product kernels converge and their
random features have small variance; the post stage lets the output's scale be learnt. Two readings
of the pre stage exist: the authors' code (SchoenbAt, ``ppSBN.py``) normalises each vector by
itself, although the name says batch. :class:`PreSBN` is the former and the default,
:class:`BatchPreSBN` the latter. The paper's printed formula could not be compared with either.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import (
    blank,
    blank_queries,
    build,
    has_joint_queries,
    is_positional,
    is_self_attention_only,
    state_size,
)
from macformer.attention.inputs.ranks import sum_over_ranks
from macformer.ops.precision import accumulation_dtype
from macformer.ops.sphere import to_sphere


class PreSBN(nn.Module):
    r"""Normalise each vector by itself, as the authors' code does.

    .. math:: x \leftarrow \frac{x - \bar x}{\|x - \bar x\|}

    with the mean over the vector's own entries. Their division by the standard deviation cancels in
    the norm. A constant vector, which their code turns into NaN, stays finite. Computed in float32.
    """

    self_attention_only = False

    def __init__(self, *, num_heads: int, head_dim: int):
        super().__init__()

    def forward(
        self, x: Float[Tensor, "B H N E"], padding_mask: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B H N E"]:
        wide = x.to(accumulation_dtype(x))
        return to_sphere(wide - wide.mean(-1, keepdim=True)).to(x.dtype)


class BatchPreSBN(nn.Module):
    r"""Normalise each channel by the statistics of the batch, then each vector by its norm.

    .. math::
        x \leftarrow \frac{\hat x}{\|\hat x\|}, \qquad
        \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}

    with :math:`\mu, \sigma^2` for each head and channel over the unpadded positions of the batch,
    summed over all ranks in distributed training. Evaluation uses running statistics, so that
    examples do not depend on one another.

    Args:
        momentum: Weight of a new batch in the running statistics, as in ``torch.nn.BatchNorm1d``.
    """

    self_attention_only = True
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, *, num_heads: int, head_dim: int, momentum: float, eps: float = 1e-5):
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(num_heads, 1, head_dim))
        self.register_buffer("running_var", torch.ones(num_heads, 1, head_dim))

    def forward(
        self, x: Float[Tensor, "B H N E"], padding_mask: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B H N E"]:
        wide = x.to(accumulation_dtype(x))
        if self.training:
            mean, var = self._batch_statistics(wide, padding_mask)
        else:
            mean, var = self.running_mean, self.running_var
        return to_sphere((wide - mean) * torch.rsqrt(var + self.eps)).to(x.dtype)

    def _batch_statistics(self, x: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if padding_mask is None:
            padding_mask = torch.zeros(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)
        present = ~padding_mask[:, None, :, None]
        count = sum_over_ranks(present.sum().to(x.dtype)).clamp(min=1)
        mean = sum_over_ranks(torch.where(present, x, 0).sum((0, 2))[:, None]) / count
        squares = torch.where(present, x - mean, 0).square().sum((0, 2))[:, None]
        squares = sum_over_ranks(squares)
        with torch.no_grad():
            unbiased = squares / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return mean, squares / count


class PostSBN(nn.Module):
    r"""Scale the output of an attention, with its sign kept.

    .. math::
        x \leftarrow \gamma \, x \, (x^2 + \epsilon^2)^{(\beta - 1) / 2}
        \approx \gamma \, \mathrm{sign}(x) |x|^\beta

    with one :math:`\gamma` and :math:`\beta` for each head, initially 1, where the stage is the
    identity. The authors' code has one for each channel in its early versions and a single one
    later. Its first version has :math:`(\gamma x)^\beta`, which is undefined for negative x; the
    version that ran has :math:`\gamma x` (``beta=False``).

    Args:
        gamma: Whether to learn the scale.
        beta: Whether to learn the power.
    """

    def __init__(
        self, *, num_heads: int, head_dim: int, gamma: bool, beta: bool, eps: float = 1e-4
    ):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(num_heads, 1, 1)) if gamma else None
        self.beta = nn.Parameter(torch.ones(num_heads, 1, 1)) if beta else None

    def forward(self, x: Float[Tensor, "B H L E"]) -> Float[Tensor, "B H L E"]:
        out = x.to(accumulation_dtype(x))
        if self.beta is not None:
            out = out * (out.square() + self.eps**2).pow((self.beta - 1) / 2)
        if self.gamma is not None:
            out = self.gamma * out
        return out.to(x.dtype)


class PPSBN(nn.Module):
    """Wrap an attention in the two stages of ppSBN, under the attention's own signature.

    Args:
        attention: The factory of the attention inside.
        pre: The factory of the pre stage, built once for queries and once for keys. Its
            ``self_attention_only`` says whether it has use for the queries' padding.
        post: The factory of the post stage; None leaves it out.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        max_seq_len: int,
        attention: Callable[..., nn.Module],
        pre: Callable[..., nn.Module],
        post: Callable[..., nn.Module] | None,
    ):
        super().__init__()
        self.pre_query = pre(num_heads=num_heads, head_dim=head_dim)
        self.pre_key = pre(num_heads=num_heads, head_dim=head_dim)
        self.attention = build(
            attention, num_heads=num_heads, head_dim=head_dim, max_seq_len=max_seq_len
        )
        self.post = nn.Identity() if post is None else post(num_heads=num_heads, head_dim=head_dim)

    @property
    def self_attention_only(self) -> bool:
        return is_self_attention_only(self.pre_query) or is_self_attention_only(self.attention)

    @property
    def positional(self) -> bool:
        return is_positional(self.attention)

    @property
    def joint_queries(self) -> bool:
        return has_joint_queries(self.attention)

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        return state_size(self.attention, seq_len=seq_len, head_dim=head_dim, value_dim=value_dim)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        same_length = query.shape[2] == key.shape[2]
        if is_self_attention_only(self.pre_query) and not same_length:
            raise ValueError(
                "batch statistics of queries need self-attention, whose key mask is theirs too: "
                f"got {query.shape[2]} queries and {key.shape[2]} keys"
            )
        query = blank_queries(query, key, key_padding_mask)
        query = self.pre_query(query, key_padding_mask if same_length else None)
        key = self.pre_key(blank(key, key_padding_mask), key_padding_mask)
        return self.post(self.attention(query, key, value, key_padding_mask=key_padding_mask))
