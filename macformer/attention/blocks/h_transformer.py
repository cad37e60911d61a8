"""H-Transformer-1D: attention coarser with distance (Zhu and Soricut 2021, arXiv 2107.11906)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from macformer.attention.contract import blank, blank_padding
from macformer.ops.hierarchy import hierarchical_attention
from macformer.ops.present import mark_present


class HTransformer(nn.Module):
    r"""Attend exactly to nearby tokens, and to averages over longer runs of tokens further away.

    .. math::
        o_i = \frac{\sum_j e^{s_{ij}} v_j}{\sum_j e^{s_{ij}}}, \qquad
        s_{ij} = \frac{\bar q^{(l)}_i \cdot \bar k^{(l)}_j}{\sqrt E}

    where l is the least level at which the blocks of i and j are the same or neighbours, blocks at
    level l being :math:`N_r 2^l` tokens long, and :math:`\bar q^{(l)}_i` is the mean over the
    present ones of the :math:`2^l` tokens around i. The levels share one softmax, by their
    normalisers. Other implementations subtract a maximum of each level's own, which changes the
    weight of the levels, or one of the whole row, which lets distant terms underflow.

    Args:
        block_size: :math:`N_r`, even.

    Raises:
        ValueError: If the block size is odd, or queries and keys differ in number.
    """

    self_attention_only = True
    joint_queries = True
    positional = True

    def __init__(self, *, num_heads: int, head_dim: int, block_size: int):
        super().__init__()
        if block_size < 2 or block_size % 2:
            raise ValueError(f"block_size must be even, got {block_size}")
        self.block_size = block_size

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        length = query.shape[2]
        if length != key.shape[2]:
            raise ValueError(f"queries are averaged as keys are, got {length} and {key.shape[2]}")
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        query = blank(query, key_padding_mask)  # it is averaged, too
        present = mark_present(key, key_padding_mask)
        return hierarchical_attention(query, key, value, present, block_size=self.block_size)
