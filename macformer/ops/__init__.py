"""Attention ops: functions of tensors, chosen by device, with exact gradients."""

from macformer.ops.arccos import arccos_attention
from macformer.ops.exponential import exponential_attention
from macformer.ops.fourier import fourier_attention
from macformer.ops.linear import guard_denominator, linear_attention
from macformer.ops.maclaurin import MaclaurinFeatures, lay_out, maclaurin_attention

__all__ = [
    "MaclaurinFeatures",
    "arccos_attention",
    "exponential_attention",
    "fourier_attention",
    "guard_denominator",
    "lay_out",
    "linear_attention",
    "maclaurin_attention",
]
