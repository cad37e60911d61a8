"""What holds for every attention that is registered as an operator of torch."""

import gc
from functools import partial

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from macformer import ops
from macformer.attention import kernels, samplers
from macformer.ops import arccos, fourier, hedgehog, pointwise, taylor
from macformer.ops.passes import through_maps
from macformer.ops.registration import Size, register_attention

B, H, S, E, F = 2, 3, 11, 6, 7
OMEGA = torch.randn(H, E, F, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(H, E, E, generator=torch.Generator().manual_seed(1))
OPERATORS = {
    "arccos": partial(ops.arccos_attention, omega=OMEGA),
    "cosine": partial(ops.cosine_attention, horizon=S),
    "elu": ops.elu_attention,
    "exponential": partial(ops.exponential_attention, omega=OMEGA),
    "fourier": partial(ops.fourier_attention, omega=OMEGA),
    "hedgehog": partial(ops.hedgehog_attention, weight_query=WEIGHT, weight_key=WEIGHT),
    "maclaurin": ops.maclaurin_attention,
    "relu": partial(ops.relu_attention, shift=0.25),
    "taylor": ops.taylor_attention,
}


@pytest.fixture(params=OPERATORS)
def attend(request):
    operator = OPERATORS[request.param]
    if request.param != "maclaurin":
        return operator
    coefficients = kernels.exp().coefficients
    features = samplers.optimal(
        coefficients, num_features=32, num_heads=H, head_dim=E, dot_bound=0.5
    )
    return partial(operator, features=features)


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


def test_an_output_without_a_gradient_leaves_none(attend, inputs):
    """As of a module with a hook, of whose two outputs a loss uses the other."""

    class Both(torch.nn.Module):
        def forward(self, query, key, value):
            return attend(query, key, value), value

    both = Both()
    both.register_full_backward_hook(lambda *_: None)
    _, value = both(*(x.requires_grad_() for x in inputs))
    value.sum().backward()
    for x in inputs[:2]:
        assert x.grad is None or not x.grad.any()
    torch.testing.assert_close(inputs[2].grad, torch.ones_like(inputs[2]))


TILES = {
    "arccos": ((arccos._forward, arccos._backward), (OMEGA, False)),
    "cosine": (through_maps("of a test", pointwise._maps(pointwise._Cosine)), (S,)),
    "elu": (through_maps("of a test", pointwise._maps(pointwise._Elu)), ()),
    "fourier": ((fourier._forward, fourier._backward), (OMEGA, False)),
    "hedgehog": ((hedgehog._forward, hedgehog._backward), (WEIGHT, WEIGHT)),
    "relu": (through_maps("of a test", pointwise._maps(pointwise._Relu)), (0.25,)),
    "taylor": ((taylor._forward, taylor._backward), ()),
}


def count(run, *inputs):
    def batched(_, first, second, **__):  # a product in place, which torch does not count
        return 2 * first.numel() * second[-1]

    mapping = {torch.ops.aten.baddbmm_: batched}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        results = run(*inputs)
    return counter.get_total_flops(), results


@pytest.mark.parametrize("name", TILES)
def test_an_operator_counts_what_its_tiles_multiply(name, inputs):
    """On the way back, all but a column of ones: the values' gradients have none."""
    (forward, backward), parameters = TILES[name]
    operator = getattr(torch.ops.macformer, f"{name}_attention")
    operator_backward = getattr(torch.ops.macformer, f"{name}_attention_backward")
    inputs = (*inputs, *parameters, None, 1e-6)
    multiplied, results = count(forward, *inputs)
    assert count(operator, *inputs)[0] == multiplied
    inputs = (*inputs, False, torch.randn(B, H, S, E), *results)
    ones = 2 * S * results[2][..., :1, :].numel()
    assert count(operator_backward, *inputs)[0] == count(backward, *inputs)[0] + ones


def test_an_operator_gives_back_its_memory_at_once(attend, inputs):
    """A cycle would hold the numbers of a tile until Python looks for cycles."""
    inputs = [x.requires_grad_() for x in inputs]
    attend(*inputs).sum().backward()  # torch remembers some things at its first call
    gc.collect()
    gc.disable()
    try:
        attend(*inputs).sum().backward()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_an_operator_that_is_defined_again_is_the_new_one(inputs):
    """As where a notebook's cell is run twice."""

    def define(make_map):
        forward, backward = through_maps("of a test", pointwise._maps(make_map))
        options = {"forward": forward, "backward": backward}
        return register_attention("again", "", size=lambda q: Size(q[-1], 0), **options)

    query, key, value = (x.requires_grad_() for x in inputs)
    for make_map, expected in (
        (pointwise._Elu, ops.elu_attention),
        (partial(pointwise._Relu, shift=0.25), partial(ops.relu_attention, shift=0.25)),
    ):
        out = define(make_map)(query, key, value, None, 1e-6)[0]
        torch.testing.assert_close(out, expected(query, key, value))
        grads = torch.autograd.grad(out.sum(), inputs)
        expected_grads = torch.autograd.grad(expected(query, key, value).sum(), inputs)
        torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize("name", ["arccos", "hedgehog", "taylor"])
def test_opcheck(name, inputs):
    """Of the operators whose own tests do not: no call checks what one returns."""
    _, parameters = TILES[name]
    operator = getattr(torch.ops.macformer, f"{name}_attention").default
    inputs = [x.requires_grad_() for x in inputs]
    torch.library.opcheck(operator, (*inputs, *parameters, None, 1e-6))
