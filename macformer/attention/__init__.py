"""Attention variants, one module per method, all under one contract.

A variant is anything importable that behaves like this::

    factory(*, num_heads, head_dim) -> module
    module(query, key, value, *, key_padding_mask=None) -> out

with tensors laid out as in ``torch.nn.functional.scaled_dot_product_attention``: ``query``
``(B, H, L, E)``, ``key`` ``(B, H, S, E)``, ``value`` ``(B, H, S, Ev)``, ``out`` ``(B, H, L, Ev)``,
and ``key_padding_mask`` ``(B, S)``, True at padding. The YAML gives the method's own parameters
(Hydra's ``_partial_``), the layer gives the shapes. Attention is bidirectional; padded keys have
no influence.
"""

from macformer.attention.inputs.scale import InputScale
from macformer.attention.maclaurin import exact, kernels, samplers
from macformer.attention.maclaurin.exact import KernelizedAttention
from macformer.attention.maclaurin.rmfa import RMFA
from macformer.attention.ppsbn import PPSBN, BatchPreSBN, PostSBN, PreSBN
from macformer.attention.rfa import RFA
from macformer.attention.softmax import SoftmaxAttention
from macformer.attention.uniform import UniformAttention

__all__ = [
    "PPSBN",
    "RFA",
    "RMFA",
    "BatchPreSBN",
    "InputScale",
    "KernelizedAttention",
    "PostSBN",
    "PreSBN",
    "SoftmaxAttention",
    "UniformAttention",
    "exact",
    "kernels",
    "samplers",
]
