"""Longformer: a sliding window and global tokens (Beltagy et al. 2020, arXiv 2004.05150)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops.band import band_parts
from macformer.ops.blocks import attend_everywhere
from macformer.ops.flash import heads_as_examples
from macformer.ops.present import mark_present
from macformer.ops.union import Part, bias, span, union_attention


class Longformer(nn.Module):
    r"""Attend within a window around each token, and to and from the first few tokens.

    .. math:: \{j : -(W - \lfloor W/2 \rfloor) < j - i \le \lfloor W/2 \rfloor\} \cup \{j : j < g\}

    each key once, and everything for the rows :math:`i < g`. Global tokens have the projections of
    the others; the authors give them three of their own.

    Args:
        window: W, both sides together, at least 2; an even one reaches one token less to the left.
        num_global: g.

    Raises:
        ValueError: If the window is too small.
    """

    positional = True

    def __init__(self, *, num_heads: int, head_dim: int, window: int, num_global: int):
        super().__init__()
        if window < 2:
            raise ValueError(f"window must be at least 2, got {window}")
        self.window = window
        self.num_global = num_global

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        shape = *query.shape[:3], value.shape[-1]
        if key_padding_mask is None:
            query, key, value = heads_as_examples(query, key, value)
        present, first = mark_present(key, key_padding_mask), self.num_global
        local = None if key_padding_mask is None else present
        if first:
            local = present.clone()
            local[:, :first] = False
        layers = [band_parts(query, key, allowed=local, window=self.window, is_causal=False)]
        if first:
            mask = bias(present[:, None, None, :first], key.dtype)
            layers.append([Part(span(0, None), span(0, first), (mask,))])
        out = union_attention(query, key, value, layers, scale=query.shape[-1] ** -0.5)
        if first:
            rows = attend_everywhere(query[:, :, :first], key, value, present)
            out = torch.cat([rows, out[:, :, first:]], 2)
        return out.view(shape)
