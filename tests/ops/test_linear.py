"""Linear attention and the guard of its denominator."""

import jaxtyping
import pytest
import torch
from torch.testing import assert_close

from macformer.ops import guard_denominator, linear_attention


def draw_inputs(batch=2, heads=3, query_len=11, key_len=13, num_features=5, value_dim=7):
    phi_q = torch.rand(batch, heads, query_len, num_features, dtype=torch.float64)
    phi_k = torch.rand(batch, heads, key_len, num_features, dtype=torch.float64)
    value = torch.randn(batch, heads, key_len, value_dim, dtype=torch.float64)
    return tuple(x.requires_grad_() for x in (phi_q, phi_k, value))


def test_by_hand():
    phi_q = torch.tensor([[1.0, 2.0]])[None, None]
    phi_k = torch.tensor([[3.0, 0.0], [1.0, 1.0]])[None, None]
    value = torch.tensor([[10.0], [4.0]])[None, None]
    # Both kernel values are 3, so that the output is the plain mean.
    assert_close(linear_attention(phi_q, phi_k, value), torch.tensor(7.0).reshape(1, 1, 1, 1))


def test_equals_the_normalised_kernel_matrix():
    phi_q, phi_k, value = draw_inputs()
    weights = phi_q @ phi_k.mT
    expected = weights @ value / weights.sum(-1, keepdim=True)
    assert_close(linear_attention(phi_q, phi_k, value), expected)


def test_gradients_agree_with_differences():
    torch.autograd.gradcheck(linear_attention, draw_inputs(1, 2, 3, 5, 2, 3))


def test_padding_is_cut_off():
    phi_q, phi_k, value = draw_inputs()
    mask = (torch.arange(13) >= 8).expand(2, 13)
    dirty_phi = phi_k.detach().masked_fill(mask[:, None, :, None], float("nan"))
    dirty_value = value.detach().masked_fill(mask[:, None, :, None], float("nan"))
    out = linear_attention(phi_q, dirty_phi, dirty_value, key_padding_mask=mask)
    assert_close(out, linear_attention(phi_q, phi_k[:, :, :8], value[:, :, :8]))


def test_half_precision_sums_in_float32():
    """In bfloat16 a sum of ones stops at 256."""
    ones = torch.ones(1, 1, 1000, 1, dtype=torch.bfloat16)
    out = linear_attention(ones[:, :, :1], ones, ones)
    assert_close(out, torch.ones(1, 1, 1, 1, dtype=torch.bfloat16), rtol=0, atol=0)


def test_autocast_keeps_float32():
    inputs = [x.detach().float() for x in draw_inputs()]
    expected = linear_attention(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(linear_attention(*inputs), expected, rtol=0, atol=0)


def test_numbers_of_features_must_agree(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside the tests
    phi_q, phi_k, value = draw_inputs()
    with pytest.raises(ValueError, match="got 5 and 4"):
        linear_attention(phi_q, phi_k[..., :4].contiguous(), value)


def test_guard():
    z = torch.tensor([2.0, 1e-8, 0.0, -1e-8, -3.0], requires_grad=True)
    guarded = guard_denominator(z, eps=1e-6)
    assert_close(guarded, torch.tensor([2.0, 1e-6, 1e-6, -1e-6, -3.0]), rtol=0, atol=0)
    (grad,) = torch.autograd.grad(guarded.sum(), z)
    assert_close(grad, torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0]), rtol=0, atol=0)
