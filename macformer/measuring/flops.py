"""Count floating-point operations by torch's counter, which lacks some operators."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


def count_flops(run: Callable[[], object]) -> int:
    """Count the multiplications and additions of a call, each as one.

    Of matrix products, convolutions, Fourier transforms and attention, on the shapes that are
    really multiplied: what a mask hides afterwards counts. What works entry by entry does not
    count, nor do sorting and gathering.
    """
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        run()
    return counter.get_total_flops()


def _sdpa(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _sdpa_backward(grad_out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad_out, query, key, value)


def _real_to_complex(x: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return _transform(math.prod(x), math.prod(x[d] for d in dim))


def _complex_to_complex(x: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * _transform(math.prod(x), math.prod(x[d] for d in dim))


def _complex_to_real(
    x: Sequence[int], dim: Sequence[int], _: int, length: int, *__: Any, **___: Any
) -> int:
    return _transform(math.prod(x) // x[dim[-1]] * length, length)


def _transform(size: int, length: int) -> int:
    """Count half of the 5 n log n of a complex transform, since the other side is real."""
    return round(2.5 * size * math.log2(length))


_FORMULAS = {
    aten._scaled_dot_product_flash_attention_for_cpu: _sdpa,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _sdpa_backward,
    aten._fft_r2c: _real_to_complex,
    aten._fft_c2c: _complex_to_complex,
    aten._fft_c2r: _complex_to_real,
}
