"""Attention variants, one module per method, all under one contract.

A variant is anything importable that behaves like this::

    factory(*, num_heads, head_dim, max_seq_len) -> module
    module(query, key, value, *, key_padding_mask=None) -> out

with tensors laid out as in ``torch.nn.functional.scaled_dot_product_attention``: ``query``
``(B, H, L, E)``, ``key`` ``(B, H, S, E)``, ``value`` ``(B, H, S, Ev)``, ``out`` ``(B, H, L, Ev)``,
and ``key_padding_mask`` ``(B, S)``, True at padding. The YAML gives the method's own parameters
(Hydra's ``_partial_``), the layer gives the shapes. ``max_seq_len`` is the longest sequence that
the layer will see; a factory that does not need it does not take it. Attention is bidirectional.

A split without padding has no mask: None means that every key is present, with the same result as a
mask that is False everywhere.

The contents of padding have no influence on outputs or gradients, whether in keys, in values or,
where L = S, in queries, and even if they are not finite. :func:`blank_padding` at the start of a
forward pass ensures that; a module must still exclude padding from its sums and counts. The result
does not depend on how far a batch is padded: whatever depends on a length counts an example's
present tokens, on the device.

A module may declare, as a class attribute or a property:

``self_attention_only``
    Queries and keys must be the same tokens: L = S, and the key mask is also the queries' mask.
``positional``
    The position of a key matters, so that padding between tokens changes the result.
``joint_queries``
    What a query gets depends on the other queries, too, so that none may be left out.

and may have methods:

``diagnostics() -> dict[str, Tensor]``
    Scalars on the device about the last forward pass, which training logs as ``attention/<name>``:
    the mean over all modules of the model, parts of an attention among them, that have them.
``state_size(*, seq_len, head_dim, value_dim) -> int``
    How many numbers a head keeps of a sequence to answer queries about it. Without the method they
    are its keys and values, S (E + Ev).
"""

from macformer.attention.blocks import (
    BigBird,
    FixedSparseAttention,
    HTransformer,
    LocalAttention,
    Longformer,
    LongShortAttention,
    Reformer,
    SinkhornAttention,
    StridedSparseAttention,
)
from macformer.attention.contract import blank_padding
from macformer.attention.feature_maps import directions
from macformer.attention.feature_maps.cosformer import CosFormer
from macformer.attention.feature_maps.linear import LinearAttention
from macformer.attention.feature_maps.maps import EluMap, HedgehogMap, ReluMap
from macformer.attention.feature_maps.performer import Performer
from macformer.attention.feature_maps.rfa import RFA
from macformer.attention.feature_maps.taylor import TaylorAttention
from macformer.attention.inputs.scale import InputScale
from macformer.attention.landmarks import (
    AllKeys,
    FixedProjection,
    GaussianAttention,
    Informer,
    LearntProjection,
    Linformer,
    Nystromformer,
    SampledKeys,
    SegmentMeans,
    Skyformer,
)
from macformer.attention.maclaurin import kernels, samplers
from macformer.attention.maclaurin.exact import KernelizedAttention
from macformer.attention.maclaurin.kernels import Kernel
from macformer.attention.maclaurin.rmfa import RMFA
from macformer.attention.none import NoAttention
from macformer.attention.ppsbn import PPSBN, BatchPreSBN, PostSBN, PreSBN
from macformer.attention.rotary import Rotary
from macformer.attention.softmax import SoftmaxAttention
from macformer.attention.synthesizer import DenseSynthesizer, RandomSynthesizer
from macformer.attention.uniform import UniformAttention
from macformer.attention.window import Window

__all__ = [
    "PPSBN",
    "RFA",
    "RMFA",
    "AllKeys",
    "BatchPreSBN",
    "BigBird",
    "CosFormer",
    "DenseSynthesizer",
    "EluMap",
    "FixedProjection",
    "FixedSparseAttention",
    "GaussianAttention",
    "HTransformer",
    "HedgehogMap",
    "Informer",
    "InputScale",
    "Kernel",
    "KernelizedAttention",
    "LearntProjection",
    "LinearAttention",
    "Linformer",
    "LocalAttention",
    "LongShortAttention",
    "Longformer",
    "NoAttention",
    "Nystromformer",
    "Performer",
    "PostSBN",
    "PreSBN",
    "RandomSynthesizer",
    "Reformer",
    "ReluMap",
    "Rotary",
    "SampledKeys",
    "SegmentMeans",
    "SinkhornAttention",
    "Skyformer",
    "SoftmaxAttention",
    "StridedSparseAttention",
    "TaylorAttention",
    "UniformAttention",
    "Window",
    "blank_padding",
    "directions",
    "kernels",
    "samplers",
]
