"""torch's fused softmax attention, without the kernel that may return NaN for some masks."""

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

WITHOUT_CUDNN = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attn_mask: Tensor | None,
    dropout_p: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Call torch's ``scaled_dot_product_attention``; it chooses among the kernels that are safe."""
    options = {"attn_mask": attn_mask, "dropout_p": dropout_p, "scale": scale}
    if not (has_choice(query) and cudnn_may_fail(key, attn_mask)):
        return scaled_dot_product_attention(query, key, value, **options)
    with sdpa_kernel(WITHOUT_CUDNN):
        return scaled_dot_product_attention(query, key, value, **options)


def has_choice(query: Tensor) -> bool:
    """Say whether there are several kernels for a tensor: on a GPU alone."""
    return query.is_cuda


def cudnn_may_fail(key: Tensor, mask: Tensor | None) -> bool:
    """Say whether cuDNN may return NaN.

    It takes a mask as a bias, and torch issue 196678 reports NaN in its gradients where the last
    block of 128 keys is half full.
    """
    return mask is not None and key.shape[-2] % 128 == 64
