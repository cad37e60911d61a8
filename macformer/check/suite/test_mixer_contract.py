"""The contract of every mixer: what its output and its gradients may depend on.

``pytest macformer/check/suite --config-dir DIR`` adds the mixers in DIR/mixer. Lengths and widths
are pairwise different, so that a transposed axis cannot hide, and 2, 3, 4 or 8 heads can share the
width. Numbers are float64, so that tolerances are about the method and not about rounding.
"""

import copy
import math
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.models import MultiheadAttention
from macformer.runs.build import build_mixer
from macformer.runs.variants import OURS, Variant, find_variants

MIXERS = {"attention", "s4d"}
MAX_SEQ_LEN, N, D = 17, 13, 24
BEHIND = torch.arange(N) >= torch.tensor([[9], [12]])
# A mixer that may have over a tenth more parameters than the attention of its recipe, and why.
LARGER = {"s4d": "a state for each channel and direction, and a gated projection twice as wide"}


def find_mixers(config: pytest.Config) -> list[Variant]:
    folders = [Path(option).resolve() for option in config.getoption("--config-dir") or []]
    if not config.getoption("--only-theirs"):
        folders = [OURS, *folders]
    return [mixer for folder in folders for mixer in find_variants(folder, "mixer")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mixer" in metafunc.fixturenames:
        found = find_mixers(metafunc.config)
        ids = [variant.name for variant in found]
        metafunc.parametrize("mixer", found, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def mixer(request, buildable):
    """Return a function that builds modules of given shapes."""
    options = ("task=listops_short", "recipe=smoke", f"mixer={request.param.name}")
    return partial(build_mixer, buildable(*options, folder=request.param.folder))


@pytest.fixture
def is_ours(request) -> bool:
    return request.node.callspec.params["mixer"].folder == OURS


def make(mixer, embed_dim=D, seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return mixer(embed_dim=embed_dim, max_seq_len=MAX_SEQ_LEN).double().eval()


def draw(length=N) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, D, dtype=torch.double, generator=generator)


def test_the_mixers_are_found(pytestconfig):
    assert {m.name for m in find_mixers(pytestconfig) if m.folder == OURS} == MIXERS


def test_output_has_the_shape_and_dtype_of_the_input(mixer):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        module = make(mixer).to(dtype)
        for mask in (None, BEHIND):
            out = module(draw().to(dtype), mask)
            assert out.shape == (2, N, D) and out.dtype == dtype and out.isfinite().all()


MODES = pytest.mark.parametrize("mode", ["evaluation", "training"])


def run(module, x, mask: torch.Tensor | None, mode: str, seed: int = 1) -> torch.Tensor:
    module = copy.deepcopy(module).train(mode == "training")
    torch.manual_seed(seed)
    return module(x, mask)


def observe(module, x, mask: torch.Tensor | None = BEHIND, mode: str = "evaluation"):
    """Return present outputs, and the gradients of input and parameters that they send back."""
    module = copy.deepcopy(module).train(mode == "training")
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    out = module(x, mask)
    if mask is not None:
        out = torch.where(mask[..., None], 0, out)
    out.backward(torch.arange(out.numel(), dtype=out.dtype).view_as(out).cos())
    assert x.grad is not None
    return out.detach(), x.grad, {name: p.grad for name, p in module.named_parameters()}


@MODES
@pytest.mark.parametrize("poison", [1e3, math.nan, math.inf])
def test_padding_is_inert(mixer, poison, mode):
    module, x = make(mixer), draw()
    expected = observe(module, x, mode=mode)
    assert_close(expected[1][BEHIND], torch.zeros_like(expected[1][BEHIND]))
    soiled = torch.where(BEHIND[..., None], poison * torch.rand_like(x), x)
    out, grad, grads = observe(module, soiled, mode=mode)
    assert_close((out, grad), expected[:2])
    if math.isfinite(poison):  # a projection's own gradient is zero times what stands at padding
        assert_close(grads, expected[2])


def test_padding_equals_cutting_it_off_however_far_it_goes(mixer):
    module, x = make(mixer), draw(MAX_SEQ_LEN)
    for length in (N, MAX_SEQ_LEN):
        mask = torch.arange(length) >= torch.tensor([[9], [12]])
        out = module(x[:, :length], mask)
        for row, present in enumerate((9, 12)):
            assert_close(out[row, :present], module(x[row : row + 1, :present])[0])


def test_padding_equals_cutting_it_off_in_training(mixer):
    """Example by example, for a mixer may learn from a batch, and unless it draws."""
    module, x = make(mixer), draw()
    if not torch.equal(*(run(module, x, None, "training", seed) for seed in (1, 2))):
        return
    for row, present in enumerate((9, 12)):
        alone = x[row : row + 1]
        out = run(module, alone, BEHIND[row : row + 1], "training")
        assert_close(out[:, :present], run(module, alone[:, :present], None, "training"))


@MODES
def test_a_mask_without_padding_is_no_mask(mixer, mode):
    module, x = make(mixer), draw()
    expected = observe(module, x, torch.zeros_like(BEHIND), mode)
    assert_close(observe(module, x, None, mode), expected)


def test_evaluation_draws_nothing(mixer):
    module, x = make(mixer), draw()
    out = run(module, x, BEHIND, "evaluation", 1)
    assert torch.equal(run(module, x, BEHIND, "evaluation", 2), out)
    torch.manual_seed(2)
    expected = torch.get_rng_state()
    run(module, x, BEHIND, "evaluation", 2)
    assert torch.equal(torch.get_rng_state(), expected)


def test_training_leaves_the_generator_its_seed(mixer):
    """Who sets one makes all that draw later draw the same, dropout at every step among them."""
    states = []
    for seed in (1, 2):
        run(make(mixer), draw(), BEHIND, "training", seed)
        states.append(torch.get_rng_state())
    assert not torch.equal(*states)


def test_examples_are_independent(mixer):
    module, x = make(mixer), draw()
    other = torch.cat([x[:1], torch.randn_like(x[1:])])
    assert_close(module(other, BEHIND)[0], module(x, BEHIND)[0])


def test_a_row_that_is_all_padding_stays_finite(mixer):
    mask = torch.tensor([[True] * N, [False] * N])
    _, grad, grads = observe(make(mixer), draw(), mask)
    assert all(g.isfinite().all() for g in (grad, *grads.values()) if g is not None)


def test_every_token_reaches_every_other(mixer, is_ours):
    """A mixer of this project is no local one; a user's may be."""
    if not is_ours:
        pytest.skip("asked of the rows of this project alone")
    x = draw().requires_grad_()
    out = make(mixer)(x, None)
    for n in (0, N // 2, N - 1):
        (grad,) = torch.autograd.grad(out[0, n].cos().sum(), x, retain_graph=True)
        assert (grad[0].abs().amax(-1) > 0).all() and (grad[1] == 0).all()


def test_gradients_are_those_of_central_differences(mixer):
    """Along a random direction of the input and of each parameter: a path cut off shows."""
    module, x = make(mixer), draw()
    tensors = [x, *module.parameters()]
    for tensor in tensors:
        tensor.requires_grad_()
    weight = torch.randn_like(x)
    grads = torch.autograd.grad((module(x, BEHIND) * weight).sum(), tensors, allow_unused=True)
    step = 1e-6
    for tensor, grad in zip(tensors, grads, strict=True):
        direction = torch.randn_like(tensor)
        with torch.no_grad():
            start, losses = tensor.clone(), []
            for sign in (1, -1):
                tensor.copy_(start + sign * step * direction)
                losses.append((module(x, BEHIND) * weight).sum())
            tensor.copy_(start)
        slope = torch.zeros(()).double() if grad is None else (grad * direction).sum()
        assert_close(slope, (losses[0] - losses[1]) / (2 * step), rtol=1e-4, atol=1e-6)


def test_parameters_have_finite_gradients(mixer):
    _, _, grads = observe(make(mixer), draw())
    for name, grad in grads.items():
        assert grad is not None and grad.isfinite().all() and grad.any(), name


def test_a_checkpoint_reproduces_the_output(mixer):
    module, other, x = make(mixer), make(mixer, seed=1), draw()
    if module.state_dict():
        assert not torch.equal(other(x, BEHIND), module(x, BEHIND))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x, BEHIND), module(x, BEHIND))


def test_two_layers_share_no_tensor(mixer):
    layers = [make(mixer) for _ in range(2)]
    one, two = (
        {x.data_ptr() for x in (*m.parameters(), *m.buffers()) if x.numel()} for m in layers
    )
    assert not one & two


def test_a_seed_decides_the_weights(mixer):
    x = draw()
    assert torch.equal(make(mixer)(x, None), make(mixer)(x, None))


@pytest.mark.filterwarnings("default:.*than attention:UserWarning")
def test_no_mixer_is_much_larger_than_attention(mixer, is_ours, request, buildable):
    name = request.node.callspec.id
    plain = make(partial(build_mixer, buildable("task=listops_short", "recipe=smoke")), 64)
    assert isinstance(plain, MultiheadAttention)
    ours, theirs = (sum(p.numel() for p in m.parameters()) for m in (make(mixer, 64), plain))
    larger = ours > 1.1 * theirs
    if is_ours:
        assert larger == (name in LARGER), f"{ours} parameters, attention has {theirs}"
    elif larger:
        message = f"{name} has {100 * ours / theirs - 100:.0f} % more parameters than attention"
        warnings.warn(UserWarning(message), stacklevel=1)
