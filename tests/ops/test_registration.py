"""What holds for every attention that is registered as an operator of torch."""

import pytest
import torch
from torch.autograd import forward_ad

from macformer.attention import kernels, samplers
from macformer.ops import exponential_attention, fourier_attention, maclaurin_attention

B, H, S, E, F = 2, 3, 11, 5, 7
OPERATORS = {
    "maclaurin": maclaurin_attention,
    "fourier": fourier_attention,
    "exponential": exponential_attention,
}


@pytest.fixture(params=OPERATORS)
def attend(request):
    features = torch.randn(H, E, F)
    if request.param == "maclaurin":
        coefficients = kernels.exp().coefficients
        features = samplers.optimal(
            coefficients, num_features=32, num_heads=H, head_dim=E, dot_bound=0.5
        )
    return lambda *inputs: OPERATORS[request.param](*inputs, features)


@pytest.fixture
def inputs():
    return tuple(torch.randn(B, H, S, E) for _ in range(3))


def test_jvp_is_refused_by_name(attend, inputs):
    with pytest.raises(NotImplementedError, match=r"macformer::\w+ has no forward-mode derivative"):
        torch.func.jvp(attend, inputs, inputs)


@pytest.mark.parametrize("which", range(3), ids=["query", "key", "value"])
def test_a_tangent_is_refused_wherever_it_stands(attend, inputs, which):
    with forward_ad.dual_level():
        duals = list(inputs)
        duals[which] = forward_ad.make_dual(duals[which], torch.ones_like(duals[which]))
        with pytest.raises(NotImplementedError, match="reverse mode"):
            attend(*duals)


def test_inputs_without_tangents_pass_at_a_dual_level(attend, inputs):
    with forward_ad.dual_level():
        out = attend(*inputs)
    torch.testing.assert_close(out, attend(*inputs), rtol=0, atol=0)
