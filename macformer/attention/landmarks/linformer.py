"""Linformer (Wang et al. 2020, Self-Attention with Linear Complexity) and its projections."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding, is_positional
from macformer.ops import segment_means
from macformer.ops.sdpa import fused_attention


class Linformer(nn.Module):
    r"""Attend to a fixed number of sums of keys and values.

    .. math:: o = \mathrm{softmax}\left(q (P k)^\top / \sqrt E\right) P v

    with one projection P from the tokens to the slots for keys and values alike, as the paper's
    sharing of both. Padding is left out of the sums.

    Args:
        num_slots: Rows of P.
        project: Factory of P, for a number of heads and slots, and the longest sequence. It takes
            tokens with zeros at padding, and returns the sums and which of them are empty, if any.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        max_seq_len: int,
        num_slots: int,
        project: Callable[..., nn.Module],
    ):
        super().__init__()
        self.num_slots = num_slots
        self.project = project(num_heads=num_heads, num_slots=num_slots, max_seq_len=max_seq_len)

    @property
    def positional(self) -> bool:
        return is_positional(self.project)

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the sums of keys and of values; weights of positions leave no slot empty."""
        num_kept = self.num_slots if self.positional else min(self.num_slots, seq_len)
        return num_kept * (head_dim + value_dim)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        q, k, v = blank_padding(query, key, value, key_padding_mask)
        k, is_empty = self.project(k, key_padding_mask)
        v, _ = self.project(v, key_padding_mask)
        attn_mask = None if is_empty is None else ~is_empty[:, None, None, :]
        return fused_attention(q, k, v, attn_mask=attn_mask)


class FixedProjection(nn.Module):
    """Weigh every position at random, in each head by itself, and never learn the weights.

    Args:
        std: Standard deviation of a weight.
    """

    positional = True
    weight: Tensor

    def __init__(self, *, num_heads: int, num_slots: int, max_seq_len: int, std: float):
        super().__init__()
        self.register_buffer("weight", std * torch.randn(num_heads, num_slots, max_seq_len))

    def forward(
        self, x: Float[Tensor, "B H S E"], padding_mask: Bool[Tensor, "B S"] | None
    ) -> tuple[Float[Tensor, "B H K E"], None]:
        return project(self.weight, x), None


class LearntProjection(nn.Module):
    """Learn the weights of every position, in each head by itself.

    Args:
        std: Standard deviation of a weight before training.
    """

    positional = True

    def __init__(self, *, num_heads: int, num_slots: int, max_seq_len: int, std: float):
        super().__init__()
        self.weight = nn.Parameter(std * torch.randn(num_heads, num_slots, max_seq_len))

    def forward(
        self, x: Float[Tensor, "B H S E"], padding_mask: Bool[Tensor, "B S"] | None
    ) -> tuple[Float[Tensor, "B H K E"], None]:
        return project(self.weight, x), None


class SegmentMeans(nn.Module):
    """Average runs of present tokens; see :func:`macformer.ops.segment_means`.

    Where there are fewer tokens than slots, those left over get no weight.
    """

    def __init__(self, *, num_heads: int, num_slots: int, max_seq_len: int):
        super().__init__()
        self.num_slots = num_slots

    def forward(
        self, x: Float[Tensor, "B H S E"], padding_mask: Bool[Tensor, "B S"] | None
    ) -> tuple[Float[Tensor, "B H K E"], Bool[Tensor, "B K"]]:
        means, is_empty = segment_means(x, num_segments=self.num_slots, padding_mask=padding_mask)
        return means.to(x.dtype), is_empty


def project(
    weight: Float[Tensor, "H K N"], x: Float[Tensor, "B H S E"]
) -> Float[Tensor, "B H K E"]:
    """Sum the tokens of each head with its weights of their positions.

    Raises:
        ValueError: If there are more tokens than the weights know positions.
    """
    if x.shape[2] > weight.shape[-1]:
        raise ValueError(f"got {x.shape[2]} tokens, but max_seq_len is {weight.shape[-1]}")
    return torch.einsum("hks,bhse->bhke", weight[..., : x.shape[2]].to(x.dtype), x)
