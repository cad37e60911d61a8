"""Softmax attention: the baseline every other row is compared with."""

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
from macformer.ops.sdpa import WITHOUT_CUDNN, cudnn_may_fail, fused_attention, has_choice


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
        options = {"attn_mask": mask, "dropout_p": self.dropout if self.training else 0.0}
        if not has_choice(query) or torch.compiler.is_compiling():  # where nothing may be asked
            return fused_attention(query, key, value, **options)
        kernel = fastest_kernel(query, key, value, mask, options["dropout_p"])
        self.kernels["train" if self.training else "inference"] = kernel.name.lower()
        with sdpa_kernel(kernel):
            return scaled_dot_product_attention(query, key, value, **options)


def candidates(key: Tensor, mask: Tensor | None) -> list[SDPBackend]:
    """Return the kernels of a GPU from the fastest on, of which the first that takes all is run.

    cuDNN leads on Hopper and Blackwell, as in torch's own order. Flash attention takes no mask, and
    dropped weights leave the memory-efficient kernel.
    """
    major, _ = torch.cuda.get_device_capability(key.device)
    leads = major in (9, 10) and not cudnn_may_fail(key, mask)
    return [SDPBackend.CUDNN_ATTENTION, *WITHOUT_CUDNN] if leads else WITHOUT_CUDNN


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
