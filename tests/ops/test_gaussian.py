"""Gaussian attention through softmax attention, in the two ways in which it is computed."""

import pytest
import torch
from torch.testing import assert_close

from macformer.measuring import measure_peak
from macformer.ops import gaussian, gaussian_attention, gaussian_kernel


def by_null_key(query, key, value, *, key_padding_mask):
    return gaussian._by_null_key(query, key, value, ~key_padding_mask, dropout=0.0)


@pytest.mark.parametrize("attend", [gaussian_attention, by_null_key], ids=["rescaled", "null key"])
@pytest.mark.parametrize("value_dim", [3, 5, 7])
def test_outputs_and_gradients_are_those_of_the_stored_weights(attend, value_dim):
    shapes = ((11, 5), (13, 5), (13, value_dim))
    inputs = [torch.randn(2, 3, *s, dtype=torch.float64, requires_grad=True) for s in shapes]
    mask = torch.arange(13) >= torch.tensor([[9], [13]])
    out = attend(*inputs, key_padding_mask=mask)
    weights = gaussian_kernel(*inputs[:2]).masked_fill(mask[:, None, None], 0)
    expected = weights @ inputs[2]
    assert_close(out, expected)
    grad = torch.randn_like(out)
    wanted = torch.autograd.grad(expected, inputs, grad)
    assert_close(torch.autograd.grad(out, inputs, grad), wanted)


def test_it_takes_hardly_more_memory_than_softmax_attention():
    inputs = [torch.randn(1, 2, 2048, 32, requires_grad=True) for _ in range(3)]

    def peak(attend) -> int:
        def run() -> None:
            torch.autograd.grad(attend(*inputs).sum(), inputs)

        run()
        return measure_peak(run, "cpu")

    softmax = peak(torch.nn.functional.scaled_dot_product_attention)
    assert peak(gaussian_attention) < 1.5 * softmax
