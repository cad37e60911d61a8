"""The contract of every attention, held against every YAML, without and with ppSBN.

``pytest tests/attention/test_contract.py --attention-dir DIR`` adds the variants in
DIR/attention/*.yaml. Dimensions are pairwise different primes, so that a transposed axis cannot
hide, and numbers are float64, so that tolerances are about the method and not about rounding.
"""

import warnings
from functools import cache
from pathlib import Path

import jaxtyping
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.testing import assert_close

import configs
from macformer.attention import contract
from macformer.runs.identity import register_resolver

B, H, L, S, E, EV = 2, 3, 11, 13, 7, 5
MAX_SEQ_LEN = 17
OURS = Path(configs.__path__[0]).resolve()


@cache
def composed(folder: Path, name: str, ppsbn: str):
    register_resolver()
    search = [] if folder == OURS else [f"hydra.searchpath=[file://{folder}]"]
    with initialize_config_module("configs", version_base="1.3"):
        return compose("train", [f"attention={name}", f"ppsbn={ppsbn}", *search])


@pytest.fixture(scope="module", params=["without", "with"])
def ppsbn(request):
    return request.param


@pytest.fixture(scope="module")
def factory(variant, ppsbn):
    return instantiate(composed(*variant, ppsbn).ppsbn)


def build(factory, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return contract.build(factory, num_heads=H, head_dim=E, max_seq_len=MAX_SEQ_LEN).eval().double()


def draw_inputs() -> list[Tensor]:
    shapes = ((B, H, L, E), (B, H, S, E), (B, H, S, EV))
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def report(variant: tuple[Path, str], message: str) -> None:
    """Fail for a variant of this project, and warn about a user's."""
    if variant[0] == OURS:
        pytest.fail(message)
    warnings.warn(UserWarning(message), stacklevel=2)


def test_every_variant_is_found(variants, request):
    files = {path.name for path in OURS.joinpath("attention").iterdir() if path.is_file()}
    rows = {name for name in files if name.endswith(".yaml") and not name.startswith("_")}
    assert {f"{name}.yaml" for folder, name in variants if folder == OURS} == rows
    assert len(rows) >= 14 and {"softmax.yaml", "rfa.yaml", "rmfa_exp.yaml"} <= rows
    num_folders = len({folder for folder, _ in variants})
    assert num_folders == 1 + len(request.config.getoption("--attention-dir"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_output_has_the_shape_of_queries_and_values(factory, dtype):
    attention, inputs = build(factory).to(dtype), [x.to(dtype) for x in draw_inputs()]
    out = attention(*inputs)
    assert out.shape == (B, H, L, EV) and out.dtype == dtype
    assert out.isfinite().all()


@pytest.mark.parametrize("padded", [[9, 10, 11, 12], [0, 4, 12]], ids=["behind", "between"])
def test_padding_is_inert(factory, padded):
    attention, (query, key, value) = build(factory), draw_inputs()
    mask = torch.zeros(B, S, dtype=torch.bool)
    mask[:, padded] = True
    out = attention(query, key, value, key_padding_mask=mask)
    garbage = [
        torch.where(mask[:, None, :, None], 1e3 * torch.randn_like(x), x) for x in (key, value)
    ]
    assert_close(attention(query, *garbage, key_padding_mask=mask), out)
    present = ~mask[0]
    assert_close(attention(query, key[:, :, present], value[:, :, present]), out)


def test_a_fully_padded_example_stays_finite(factory):
    attention, inputs = build(factory), [x.requires_grad_() for x in draw_inputs()]
    mask = torch.tensor([True, False])[:, None].expand(B, S)
    out = attention(*inputs, key_padding_mask=mask)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(x.grad is None or x.grad.isfinite().all() for x in inputs)


def test_examples_are_independent(factory):
    attention, inputs = build(factory), draw_inputs()
    mask = torch.arange(S) >= torch.tensor([[S], [S - 2]])
    out = attention(*inputs, key_padding_mask=mask)
    for x in inputs:
        x[1] = torch.randn_like(x[1])
    mask[1] = torch.arange(S) < 3
    assert_close(attention(*inputs, key_padding_mask=mask)[0], out[0])


def test_gradients_are_those_of_central_differences(factory):
    """Along a random direction of each input and parameter: a path that is cut off shows."""
    attention, inputs = build(factory), [0.5 * x for x in draw_inputs()]
    weight = torch.randn(B, H, L, EV, dtype=torch.float64)
    tensors = [*inputs, *attention.parameters()]
    for x in tensors:
        x.requires_grad_()

    def loss() -> Tensor:
        return (attention(*inputs) * weight).sum()

    grads = torch.autograd.grad(loss(), tensors, allow_unused=True)
    step = 1e-6
    for x, grad in zip(tensors, grads, strict=True):
        assert grad is None or grad.isfinite().all()
        direction = torch.randn_like(x)
        with torch.no_grad():
            up = x.add_(step * direction) is x and loss()
            down = x.sub_(2 * step * direction) is x and loss()
            x.add_(step * direction)
        expected = (up - down) / (2 * step)
        slope = torch.zeros_like(expected) if grad is None else (grad * direction).sum()
        # rounding leaves 1e-8 of a difference; a path that is cut off misses a share of the slope
        assert_close(slope, expected, rtol=1e-4, atol=1e-6)


def tensors_of(module: nn.Module) -> set[int]:
    """Return the addresses of all tensors, registered or not."""
    registered = [*module.parameters(), *module.buffers()]
    plain = [v for m in module.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    return {t.data_ptr() for t in registered + plain if t.numel()}


def test_two_layers_share_no_tensor(factory):
    layers = [build(factory) for _ in range(2)]
    assert not tensors_of(layers[0]) & tensors_of(layers[1])


def test_a_checkpoint_reproduces_the_output(factory):
    saved, other, inputs = build(factory, seed=0), build(factory, seed=1), draw_inputs()
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other(*inputs), saved(*inputs))


@pytest.mark.filterwarnings("default:.*whatever the seed:UserWarning")
def test_the_seed_decides_the_features(variant, factory):
    first, again, other = build(factory, 0), build(factory, 0), build(factory, 1)
    inputs = draw_inputs()
    assert torch.equal(first(*inputs), again(*inputs))
    tables = [
        (x, y)
        for x, y in zip(again.buffers(), other.buffers(), strict=True)
        if x.is_floating_point() and len(x.unique()) > 1
    ]
    if tables and all(torch.equal(x, y) for x, y in tables):
        report(variant, f"the buffers of {variant[1]} are the same whatever the seed")


@pytest.mark.filterwarnings("default:.*more parameters:UserWarning")
def test_the_classifier_is_about_as_large_as_with_softmax(variant, ppsbn):
    """At the sizes of recipe=skyformer; Tay et al. 2021 compare models of one size, within 10 %."""
    size = num_parameters(*variant, ppsbn)
    excess = size / num_parameters(OURS, "softmax", "without") - 1
    if excess > 0.1:
        report(variant, f"{variant[1]} has {100 * excess:.0f} % more parameters than softmax")


@cache
def num_parameters(folder: Path, name: str, ppsbn: str) -> int:
    cfg = composed(folder, name, ppsbn)
    assert cfg.recipe.name == "skyformer"
    return sum(p.numel() for p in instantiate(cfg.model).parameters())


@pytest.mark.slow
def test_runs_under_autocast(factory):
    attention, inputs = build(factory).float(), [x.float() for x in draw_inputs()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(*inputs)
    assert out.isfinite().all()


@pytest.mark.slow
def test_compiles(factory, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    torch.compiler.reset()
    attention, inputs = build(factory), draw_inputs()
    mask = torch.arange(S) >= torch.tensor([[S], [S - 2]])
    compiled = torch.compile(attention, backend="aot_eager")
    out = attention(*inputs, key_padding_mask=mask)
    assert_close(compiled(*inputs, key_padding_mask=mask), out)
