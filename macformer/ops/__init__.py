"""Attention ops: functions of tensors, chosen by device, with exact gradients."""

from macformer.ops.arccos import arccos_attention
from macformer.ops.exponential import exponential_attention
from macformer.ops.fourier import fourier_attention
from macformer.ops.gaussian import gaussian_attention, gaussian_kernel
from macformer.ops.hedgehog import hedgehog_attention
from macformer.ops.iterated_inverse import iterated_solve
from macformer.ops.linear import guard_denominator, linear_attention
from macformer.ops.maclaurin import MaclaurinFeatures, lay_out, maclaurin_attention
from macformer.ops.pointwise import cosine_attention, elu_attention, relu_attention
from macformer.ops.segments import segment_means
from macformer.ops.taylor import taylor_attention

__all__ = [
    "MaclaurinFeatures",
    "arccos_attention",
    "cosine_attention",
    "elu_attention",
    "exponential_attention",
    "fourier_attention",
    "gaussian_attention",
    "gaussian_kernel",
    "guard_denominator",
    "hedgehog_attention",
    "iterated_solve",
    "lay_out",
    "linear_attention",
    "maclaurin_attention",
    "relu_attention",
    "segment_means",
    "taylor_attention",
]
