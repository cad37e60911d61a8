"""Long-short attention: a window beside keys pooled over the row (Zhu et al. 2021, 2107.02192)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from macformer.attention.contract import blank_padding
from macformer.ops.blocks import (
    block_attention,
    count_blocks,
    from_blocks,
    present_in_windows,
    to_blocks,
    to_windows,
)
from macformer.ops.precision import accumulation_dtype
from macformer.ops.present import mark_present
from macformer.ops.sdpa import fused_attention


class LongShortAttention(nn.Module):
    r"""Attend to a window of blocks and to r pooled keys by one softmax.

    .. math::
        P = \mathrm{softmax}_j(k_j W), \qquad
        \bar K = \mathrm{LN}_2(P^\top \mathrm{LN}_1(K)), \quad
        \bar V = \mathrm{LN}_4(P^\top \mathrm{LN}_3(V))

    over the present keys, with one W for each head. The window of a block of w queries is the block
    and :math:`\max(w/2, 1)` tokens on either side, of :math:`\mathrm{LN}_1(K)` and
    :math:`\mathrm{LN}_3(V)`. A normalisation runs over all heads of a token. The authors compute
    the logits of P from the layer's input, which an attention does not see, and share gain and bias
    between keys and values; here those of values have none, since a projection follows.

    Args:
        window: w.
        num_pooled: r.
    """

    positional = True

    def __init__(self, *, num_heads: int, head_dim: int, window: int, num_pooled: int):
        super().__init__()
        self.window = window
        self.pool = nn.Parameter(torch.empty(num_heads, num_pooled, head_dim))
        nn.init.normal_(self.pool, std=head_dim**-0.5)
        self.key_norm = nn.LayerNorm([num_heads, head_dim])
        self.pooled_key_norm = nn.LayerNorm([num_heads, head_dim])

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        present = mark_present(key, key_padding_mask)
        length, w, margin = query.shape[2], self.window, max(self.window // 2, 1)
        num_blocks = count_blocks(length, w)
        k, v = _normalise(key, self.key_norm), _normalise(value)
        pooled_k = _normalise(self._pool(key, k, present), self.pooled_key_norm)
        pooled_v = _normalise(self._pool(key, v, present))

        q = to_blocks(query, w, num_blocks)
        k, v = (
            torch.cat([x[:, None].expand(-1, num_blocks, -1, -1, -1), y], 3)
            for x, y in (
                (pooled_k, to_windows(k, w, num_blocks, margin=margin)),
                (pooled_v, to_windows(v, w, num_blocks, margin=margin)),
            )
        )
        near = present_in_windows(present, w, num_blocks, margin=margin)
        far = present.any(1)[:, None, None, None].expand(*near.shape[:3], pooled_k.shape[2])
        return from_blocks(block_attention(q, k, v, valid=torch.cat([far, near], -1)), length)

    def _pool(self, key: Tensor, x: Tensor, present: Tensor) -> Float[Tensor, "B H r X"]:
        """Average by the weights of W, which stand as r queries without a scale."""
        directions = self.pool.to(key.dtype).expand(len(key), -1, -1, -1)
        mask = present[:, None, None]
        return fused_attention(directions, key, x, attn_mask=mask, scale=1.0)


def _normalise(
    x: Float[Tensor, "B H N E"], norm: nn.LayerNorm | None = None
) -> Float[Tensor, "B H N E"]:
    """Normalise over all heads of a token, in float32 at least, with a gain and a bias if any."""
    wide = accumulation_dtype(x)
    gain, bias = (None, None) if norm is None else (norm.weight.to(wide), norm.bias.to(wide))
    tokens = x.transpose(1, 2).to(wide)
    return layer_norm(tokens, tokens.shape[-2:], gain, bias).to(x.dtype).transpose(1, 2)
