"""Nystromformer (Xiong et al. 2021, A Nystrom-Based Algorithm for Approximating Self-Attention)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import conv2d

from macformer.attention.contract import blank_padding
from macformer.ops import iterated_solve, segment_means
from macformer.ops.precision import without_autocast
from macformer.ops.present import query_padding
from macformer.ops.sdpa import fused_attention


class Nystromformer(nn.Module):
    r"""Approximate softmax attention through the means of segments.

    .. math::
        o = \sigma(q \tilde k^\top) \, Z \, \sigma(\tilde q k^\top) \, v, \qquad
        Z \approx \sigma(\tilde q \tilde k^\top)^{-1}

    with :math:`\sigma` the softmax of scores over :math:`\sqrt E`, :math:`\tilde q, \tilde k` the
    means of m runs of queries and keys, and the inverse of
    :func:`macformer.ops.iterated_solve`. Both outer factors are softmax attention, so that no
    L x m matrix is stored.

    Segments divide the present tokens, where the authors' code divides the padded row and takes its
    padding into the means. A row of fewer than m tokens leaves segments empty: these get no weight,
    and their rows and columns of zeros have no part in the inverse. The latter starts from its own
    matrix, where theirs starts from the largest of the batch.

    Args:
        num_landmarks: m.
        num_steps: Steps of the inverse.
        conv_kernel: Width of a convolution of the values over positions, one filter per head, whose
            result is added; None leaves it out.

    Raises:
        ValueError: If conv_kernel is even.
    """

    joint_queries = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        num_landmarks: int,
        num_steps: int,
        conv_kernel: int | None,
    ):
        super().__init__()
        if conv_kernel is not None and conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel {conv_kernel} is even, so that it has no middle")
        self.num_landmarks = num_landmarks
        self.num_steps = num_steps
        self.conv = None
        if conv_kernel is not None:
            shape = (conv_kernel, 1)
            self.conv = nn.Conv2d(num_heads, num_heads, shape, groups=num_heads, bias=False)

    @property
    def positional(self) -> bool:
        return self.conv is not None

    @property
    def self_attention_only(self) -> bool:
        return self.conv is not None

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep mean keys and the values solved for them; a convolution reads all values, too."""
        convolved = 0 if self.conv is None else seq_len * value_dim
        return min(self.num_landmarks, seq_len) * (head_dim + value_dim) + convolved

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        if self.conv is not None and query.shape[2] != key.shape[2]:
            raise ValueError(
                f"the convolution needs as many queries as keys, got {query.shape[2]} queries "
                f"and {key.shape[2]} keys"
            )
        q, k, v = blank_padding(query, key, value, key_padding_mask)
        queries = query_padding(q, k, key_padding_mask)
        # no more segments than tokens: the others would be empty, and inverted at m^3 all the same
        num_segments = min(self.num_landmarks, max(query.shape[2], key.shape[2]))
        mean_q, no_query = segment_means(q, num_segments=num_segments, padding_mask=queries)
        mean_k, no_key = segment_means(k, num_segments=num_segments, padding_mask=key_padding_mask)
        near = fused_attention(mean_q.to(k.dtype), k, v, attn_mask=_allow(key_padding_mask))
        weights = _landmark_weights(mean_q, mean_k, no_query=no_query, no_key=no_key)
        values = iterated_solve(weights, near, num_steps=self.num_steps)
        out = fused_attention(q, mean_k.to(q.dtype), values, attn_mask=_allow(no_key))
        return out if self.conv is None else out + _filter(v, self.conv.weight)


def _filter(
    value: Float[Tensor, "B H S Ev"], weight: Float[Tensor, "H 1 width 1"]
) -> Float[Tensor, "B H S Ev"]:
    """Convolve each head over positions, with zeros beyond the ends, in the values' dtype."""
    padding = (weight.shape[2] // 2, 0)
    return conv2d(value, weight.to(value.dtype), padding=padding, groups=len(weight))


def _allow(padding_mask: Bool[Tensor, "B S"] | None) -> Bool[Tensor, "B 1 1 S"] | None:
    return None if padding_mask is None else ~padding_mask[:, None, None, :]


@without_autocast
def _landmark_weights(
    mean_q: Float[Tensor, "B H M E"],
    mean_k: Float[Tensor, "B H M E"],
    *,
    no_query: Bool[Tensor, "B M"],
    no_key: Bool[Tensor, "B M"],
) -> Float[Tensor, "B H M M"]:
    """Return the softmax between landmarks, with zeros for those of empty segments."""
    scores = mean_q @ mean_k.mT / mean_q.shape[-1] ** 0.5
    scores = scores.masked_fill(no_key[:, None, None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(no_query[:, None, :, None], 0)
