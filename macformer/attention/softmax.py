"""Softmax attention: the baseline every other row is compared with."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.backends.cuda import (
    SDPAParams,
    can_use_cudnn_attention,
    can_use_efficient_attention,
    can_use_flash_attention,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from macformer.attention.contract import blank_padding


class SoftmaxAttention(nn.Module):
    r"""Softmax attention through torch's fused kernels, on a GPU the fastest applicable one.

    .. math:: o = \mathrm{softmax}(q k^\top / \sqrt{E}) v

    Args:
        dropout: Share of the weights dropped in training. Linear attentions form no weights, and
            rows compare alike only without it.
    """

    def __init__(self, *, num_heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        # Of a GPU, that the last pass of a phase ran through; a compiled pass does not say.
        self.kernels: dict[str, str] = {}

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        mask = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        with self._choose_kernel(query, key, value, mask, dropout):
            return scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout
            )

    def _choose_kernel(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
    ) -> AbstractContextManager[object]:
        if not has_choice(query):
            return nullcontext()
        if torch.compiler.is_compiling():  # in whose programs torch's questions cannot stand
            return sdpa_kernel(candidates(key, mask), set_priority=True)
        kernel = fastest_kernel(query, key, value, mask, dropout)
        self.kernels["train" if self.training else "inference"] = kernel.name.lower()
        return sdpa_kernel(kernel)


def has_choice(query: Tensor) -> bool:
    """Say whether there are several kernels for a tensor: on a GPU alone."""
    return query.is_cuda


def candidates(key: Tensor, mask: Tensor | None) -> list[SDPBackend]:
    """Return the kernels of a GPU from the fastest on, of which the first that takes all is run.

    The order is that of Hopper, where cuDNN leads. Flash attention takes no mask, and cuDNN takes
    it as a bias: torch issue 196678 reports NaN in its gradients where the last block of 128 keys
    is half full, so that it is left out there. Dropped weights leave the memory-efficient kernel.
    """
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    half_block = mask is not None and key.shape[-2] % 128 == 64
    return kernels if half_block else [SDPBackend.CUDNN_ATTENTION, *kernels]


def fastest_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> SDPBackend:
    """Choose the kernel of a GPU for these inputs by what the host knows of them."""
    inputs = SDPAParams(query, key, value, mask, dropout, False, False)
    able = {
        SDPBackend.CUDNN_ATTENTION: can_use_cudnn_attention,
        SDPBackend.FLASH_ATTENTION: can_use_flash_attention,
        SDPBackend.EFFICIENT_ATTENTION: can_use_efficient_attention,
        SDPBackend.MATH: lambda inputs: True,
    }
    return next(kernel for kernel in candidates(key, mask) if able[kernel](inputs))
