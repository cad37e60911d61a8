"""Sinkhorn attention: blocks sorted before they attend (Tay et al. 2020, arXiv 2002.11296)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.ops.blocks import (
    block_attention,
    count_blocks,
    from_blocks,
    present_in_windows,
    to_blocks,
)
from macformer.ops.precision import accumulation_dtype
from macformer.ops.present import mark_present
from macformer.ops.union import bias


class SinkhornAttention(nn.Module):
    r"""Attend to the query's own block and to a block that a soft permutation aligns with it.

    .. math::
        R = \mathrm{Sinkhorn}\big((z W + \text{Gumbel}) / \tau\big), \qquad
        \tilde K_u = \sum_w R_{uw} K_w, \quad \tilde V_u = \sum_w R_{uw} V_w

    where :math:`z_u` is the sum of block u's present keys, and row t of a block is mixed with row t
    of the others. Block u attends to :math:`[\tilde K_u, K_u]` by one softmax. R is normalised over
    the blocks that hold a present token; a mixed row counts if any of its tokens is present. The
    noise is added in training only. Long Range Arena's einsum sums a row of R by itself, so that
    nothing is sorted, and adds the outputs of two softmaxes.

    Args:
        block_size: In tokens.
        num_iterations: Normalisations of rows and columns.
        temperature: :math:`\tau`.

    Raises:
        ValueError: If queries and keys differ in number, or are more than ``max_seq_len``.
    """

    self_attention_only = True
    positional = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        max_seq_len: int,
        block_size: int,
        num_iterations: int,
        temperature: float,
    ):
        super().__init__()
        self.block_size = block_size
        self.num_iterations = num_iterations
        self.temperature = temperature
        self.sort = nn.Parameter(torch.empty(head_dim, count_blocks(max_seq_len, block_size)))
        nn.init.xavier_uniform_(self.sort)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        length, b = query.shape[2], self.block_size
        num_blocks = count_blocks(length, b)
        if length != key.shape[2]:
            raise ValueError(f"queries and keys are sorted alike, got {length} and {key.shape[2]}")
        if num_blocks > self.sort.shape[1]:
            raise ValueError(f"got {num_blocks} blocks, at most {self.sort.shape[1]} can be sorted")
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        present = mark_present(key, key_padding_mask)
        q, k, v = (to_blocks(x, b, num_blocks) for x in (query, key, value))
        tokens = present_in_windows(present, b, num_blocks, margin=0)
        exists = tokens.any(-1)

        order = self._order(k, exists.mT).to(k.dtype)
        mixed = tokens.any(1, keepdim=True) & exists[..., None]
        k, v = (torch.cat([_mix(order, x), x], 3) for x in (k, v))
        out = block_attention(q, k, v, valid=torch.cat([mixed, tokens], -1))
        return from_blocks(out, length)

    def _order(
        self, key: Float[Tensor, "B blocks H block E"], exists: Bool[Tensor, "B 1 blocks"]
    ) -> Float[Tensor, "B H blocks blocks"]:
        """Sort blocks by the sums of their keys, in float32 at least, under autocast too."""
        wide = accumulation_dtype(key)
        with torch.autocast(key.device.type, enabled=False):
            sums = key.sum(3, dtype=wide)
            logits = (sums @ self.sort[:, : exists.shape[-1]].to(wide)).transpose(1, 2)
            return self._normalise(logits, exists)

    def _normalise(
        self, logits: Float[Tensor, "B H blocks blocks"], exists: Bool[Tensor, "B 1 blocks"]
    ) -> Float[Tensor, "B H blocks blocks"]:
        """Make rows and columns of existing blocks sum to one, by turns, in the logarithm."""
        if self.training:
            uniform = torch.rand_like(logits).clamp(min=torch.finfo(logits.dtype).tiny)
            logits = logits - (-uniform.log()).log()
        logits = logits / self.temperature
        mask = bias(exists[..., None] & exists[..., None, :], logits.dtype)
        for _ in range(self.num_iterations):
            for dim in (-1, -2):
                masked = logits + mask
                logits = logits - masked.logsumexp(dim, keepdim=True).clamp(min=-1e6)
        return (logits + mask).exp()


def _mix(
    order: Float[Tensor, "B H blocks blocks"], x: Float[Tensor, "B blocks H block E"]
) -> Float[Tensor, "B blocks H block E"]:
    rows = x.transpose(1, 2)
    return (order @ rows.flatten(3)).view_as(rows).transpose(1, 2)
