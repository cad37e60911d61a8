"""Exact kernelised attention by hand and against independent closed forms."""

import math

import mpmath
import pytest
import torch
from torch.testing import assert_close

from macformer.attention import Kernel, KernelizedAttention, kernels
from macformer.attention.maclaurin.kernels import in_closed_form

CLOSED_FORMS = {
    "exp": mpmath.exp,
    "inv": lambda t: 1 / (1 - t),
    "log": lambda t: 1 - mpmath.log(1 - t),
    "trigh": lambda t: mpmath.sinh(t) + mpmath.cosh(t),
    "sqrt": lambda t: 2 - mpmath.sqrt(1 - t),
}
H, L, S, E, EV = 3, 11, 13, 7, 5


def attend(**changes):
    options = {"kernel": kernels.exp(), "input_norm": None, "guard": None, "scale": None}
    return KernelizedAttention(num_heads=H, head_dim=E, **(options | changes))


def draw_inputs():
    return [torch.randn(2, H, *shape, dtype=torch.float64) for shape in ((L, E), (S, E), (S, EV))]


@pytest.mark.parametrize("kernel", CLOSED_FORMS)
def test_kernels_in_double_precision(kernel):
    t = torch.linspace(-0.95, 0.95, 39, dtype=torch.float64)
    with mpmath.workdps(30):
        expected = [float(CLOSED_FORMS[kernel](mpmath.mpf(x))) for x in t.tolist()]
    assert_close(
        getattr(kernels, kernel)().closed_form(t), torch.tensor(expected, dtype=torch.float64)
    )
    bare = getattr(kernels, kernel)()._replace(closed_form=None)
    series = in_closed_form(bare, dot_bound=0.95).closed_form
    assert series is not None
    assert_close(series(t), torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)  # cut at 1e-7


def test_trigh_keeps_its_digits_far_below_zero():
    """sinh t + cosh t cancels there: in float32, to nothing at all."""
    assert kernels.trigh().closed_form(torch.tensor(-20.0)).item() == pytest.approx(math.exp(-20))


def test_weights_by_hand():
    """K = 1 / (1 - 1/2) and 1 for keys 1/2 and 0."""
    key = torch.tensor([0.5, 0.0]).view(1, 1, 2, 1)
    value = torch.tensor([3.0, 9.0]).view(1, 1, 2, 1)
    attention = KernelizedAttention(
        num_heads=1, head_dim=1, kernel=kernels.inv(), input_norm=None, guard=None, scale=None
    )
    assert attention(torch.ones(1, 1, 1, 1), key, value).item() == pytest.approx((2 * 3 + 9) / 3)


def test_exp_is_softmax():
    query, key, value = draw_inputs()
    expected = torch.softmax(query @ key.mT / math.sqrt(E), dim=-1) @ value
    assert_close(attend()(query, key, value), expected)


def test_what_overflows_in_padding_leaves_outputs_and_gradients():
    query, key, value = draw_inputs()
    mask = torch.arange(S) >= torch.tensor([[S - 4], [S]])
    garbage = torch.where(mask[:, None, :, None], math.inf, key)
    query.requires_grad_()
    out = attend()(query, garbage, value, key_padding_mask=mask)
    cut = attend()(query[:1], key[:1, :, :-4], value[:1, :, :-4])
    assert_close(out[:1], cut)
    (grad,) = torch.autograd.grad(out.sum(), query)
    assert grad.isfinite().all()


def test_half_precision_is_summed_in_float32():
    inputs = [x.bfloat16() for x in draw_inputs()]
    out = attend()(*inputs)
    exact = attend()(*(x.double() for x in inputs))
    assert out.dtype == torch.bfloat16
    # queries times keys are rounded to bfloat16 before the kernel, the output after it
    assert_close(out.double(), exact, rtol=0, atol=8 * torch.finfo(torch.bfloat16).eps)


def test_a_kernel_without_a_closed_form_is_summed():
    """a_n = 2^-2n is 1 / (1 - t / 4), whatever the kernel is called."""
    own = Kernel("log", lambda n: 0.25**n, None, 4.0)
    attention = attend(kernel=own, guard=0.5)
    same = attend(kernel=own._replace(closed_form=lambda t: 1 / (1 - t / 4)), guard=0.5)
    inputs = draw_inputs()
    assert_close(attention(*inputs), same(*inputs), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="log has no closed form"):
        attend(kernel=own)


def test_precision_is_float32_under_autocast():
    inputs = [x.bfloat16() for x in draw_inputs()]
    attention = attend(guard=0.5)
    expected = attention(*(x.float() for x in inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(*inputs)
    assert_close(out, expected.bfloat16(), rtol=0, atol=0)
