"""The contract of every attention, held against every YAML, without and with ppSBN.

``pytest tests/attention --attention-dir DIR`` adds the variants in DIR/attention/*.yaml.
Dimensions are pairwise different primes, so that a transposed axis cannot hide.
"""

import warnings
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import nn

import configs
from macformer.identity import register_resolver

B, H, L, S, E, EV = 2, 3, 11, 13, 7, 5
OURS = Path(configs.__path__[0]).resolve()


def compose_variant(folder: Path, name: str, ppsbn: str, *overrides: str):
    register_resolver()
    search = [] if folder == OURS else [f"hydra.searchpath=[file://{folder}]"]
    with initialize_config_module("configs", version_base="1.3"):
        return compose("train", [f"attention={name}", f"ppsbn={ppsbn}", *search, *overrides])


@pytest.fixture(scope="module", params=["without", "with"])
def factory(variant, request):
    cfg = compose_variant(*variant, request.param)
    return instantiate(cfg.model.attention)


def build(factory, seed=0, *, head_dim=E) -> nn.Module:
    torch.manual_seed(seed)
    return factory(num_heads=H, head_dim=head_dim).eval()


def inputs(seed=1, *, key_len=S):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, H, L, E), (B, H, key_len, E), (B, H, key_len, EV))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def padding(*lengths: int, key_len=S) -> torch.Tensor:
    return torch.arange(key_len)[None] >= torch.tensor(lengths)[:, None]


def test_variants_are_found():
    assert len(list((OURS / "attention").glob("[!_]*.yaml"))) >= 14


def test_output_has_the_shape_of_queries_and_values(factory):
    out = build(factory)(*inputs())
    assert out.shape == (B, H, L, EV) and out.dtype == torch.float32
    assert out.isfinite().all()


def test_padding_is_inert(factory):
    attention, (query, key, value) = build(factory), inputs()
    mask = padding(S - 4, S - 4)
    out = attention(query, key, value, key_padding_mask=mask)
    soiled = [torch.where(mask[:, None, :, None], 100.0, x) for x in (key, value)]
    torch.testing.assert_close(attention(query, *soiled, key_padding_mask=mask), out)
    cut = attention(query, key[:, :, : S - 4], value[:, :, : S - 4])
    torch.testing.assert_close(out, cut, rtol=1e-4, atol=1e-5)  # sums in another order


def test_fully_padded_examples_stay_finite(factory):
    attention, tensors = build(factory), [x.requires_grad_() for x in inputs()]
    out = attention(*tensors, key_padding_mask=padding(S, 0))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(x.grad is None or x.grad.isfinite().all() for x in tensors)


def test_examples_are_independent(factory):
    attention, tensors = build(factory), inputs()
    mask = padding(S, S - 2)
    out = attention(*tensors, key_padding_mask=mask)
    for x in tensors:
        x[1] = torch.randn_like(x[1])
    torch.testing.assert_close(attention(*tensors, key_padding_mask=mask)[0], out[0])


def test_gradients_agree_with_central_differences(factory):
    attention = build(factory).double()
    tensors = [x.double().requires_grad_() for x in inputs()]
    weight = torch.randn(B, H, L, EV, dtype=torch.float64)

    def loss():
        return (attention(*tensors) * weight).sum()

    loss().backward()
    generator = torch.Generator().manual_seed(3)
    for x in tensors:
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        analytic = 0.0 if x.grad is None else (x.grad * direction).sum().item()
        step = 1e-6
        with torch.no_grad():
            x += step * direction
            up = loss().item()
            x -= 2 * step * direction
            down = loss().item()
            x += step * direction
        assert analytic == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-6)


def test_two_layers_share_no_tensor(factory):
    one, two = build(factory), build(factory)
    pointers = [{t.data_ptr() for t in m.state_dict().values() if t.numel()} for m in (one, two)]
    assert not pointers[0] & pointers[1]
    modules = [set(map(id, m.modules())) for m in (one, two)]
    assert not modules[0] & modules[1]


def test_checkpoint_reproduces_the_output(factory):
    saved, other = build(factory, seed=0), build(factory, seed=1)
    other.load_state_dict(saved.state_dict())
    torch.testing.assert_close(other(*inputs()), saved(*inputs()), rtol=0, atol=0)


def test_seed_decides_the_features(factory):
    first, again, other = build(factory, 0), build(factory, 0), build(factory, 1)
    torch.testing.assert_close(first(*inputs()), again(*inputs()), rtol=0, atol=0)
    parameters = dict(first.named_parameters())
    random = [
        value.shape != other.state_dict()[name].shape or not value.equal(other.state_dict()[name])
        for name, value in first.state_dict().items()
        if name not in parameters
    ]
    if any(random):
        assert not torch.equal(first(*inputs()), other(*inputs()))


def test_classifier_is_no_larger_than_with_softmax(variant):
    sizes = {}
    for name, folder in ((variant[1], variant[0]), ("softmax", OURS)):
        cfg = compose_variant(folder, name, "with", "task=listops", "recipe=skyformer")
        sizes[name] = sum(p.numel() for p in instantiate(cfg.model).parameters())
    excess = sizes[variant[1]] / sizes["softmax"] - 1
    if excess > 0.1:
        message = f"{variant[1]} has {100 * excess:.0f} % more parameters than softmax"
        if variant[0] == OURS:
            pytest.fail(message)
        warnings.warn(UserWarning(message), stacklevel=1)


@pytest.mark.slow
def test_runs_under_autocast_and_compiled(factory):
    attention = build(factory)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention(*inputs()).isfinite().all()
    compiled = torch.compile(attention)
    torch.testing.assert_close(compiled(*inputs()), attention(*inputs()), rtol=1e-4, atol=1e-5)
