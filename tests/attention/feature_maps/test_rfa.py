"""Random feature attention (Peng et al. 2021) as an estimate of its kernels."""

import math

import pytest
import torch
from torch.testing import assert_close

from macformer.attention import RFA
from macformer.ops import arccos_attention, fourier_attention

H, L, S, E, EV = 3, 11, 13, 7, 5


def rfa(**changes) -> RFA:
    options = {"num_features": 16, "attend": fourier_attention, "pool_size": 5, "redraw": True}
    return RFA(num_heads=H, head_dim=E, **(options | changes)).double()


def draw_inputs():
    return [
        3 * torch.randn(1, H, *shape, dtype=torch.float64) for shape in ((L, E), (S, E), (S, EV))
    ]


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def gaussian(query, key):
    return torch.exp(-torch.cdist(query, key).square() / 2)


def arccos(query, key):
    """Cho and Saul (2009), degree 1: (sin a + (pi - a) cos a) |x| |y| / pi."""
    cosine = unit(query) @ unit(key).mT
    angle = cosine.clamp(-1, 1).acos()
    norms = query.norm(dim=-1)[..., :, None] * key.norm(dim=-1)[..., None, :]
    return norms * (angle.sin() + (math.pi - angle) * cosine) / math.pi


KERNELS = {"gaussian": (fourier_attention, gaussian), "arccos": (arccos_attention, arccos)}


def kernel_of(attend, query, key, omega):
    """Read an estimated kernel off attention.

    Values are unit vectors, so that outputs are the kernel's rows over their sums.
    """
    values = torch.eye(key.shape[2], dtype=query.dtype).expand(*key.shape[:2], -1, -1)
    return attend(query, key, values, omega)


@pytest.mark.parametrize("kernel", KERNELS)
def test_many_features_give_the_exact_attention(kernel):
    """The inputs' norms are divided out first."""
    attend, exact = KERNELS[kernel]
    query, key, value = draw_inputs()
    weights = exact(unit(query), unit(key))
    target = weights @ value / weights.sum(-1, keepdim=True)
    errors = []
    for num_features in (64, 4096):
        outs = [
            rfa(num_features=num_features, attend=attend).eval()(query, key, value)
            for _ in range(8)
        ]
        errors.append((sum((out - target).detach().square().mean() for out in outs) / 8).sqrt())
    assert errors[1] < 0.05 * target.std()
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.35)  # sqrt(4096 / 64)


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_are_unbiased_within_five_standard_errors(kernel):
    """Two keys: the ratio of their weights, linearised in 400 draws of 1024 features."""
    attend, exact = KERNELS[kernel]
    query, key = unit(draw_inputs()[0])[:, :, :2], unit(draw_inputs()[1])[:, :, :2]
    weights = exact(query, key)
    shares = weights / weights.sum(-1, keepdim=True)
    draws = torch.stack(
        [
            kernel_of(attend, query, key, torch.randn(H, E, 1024, dtype=torch.float64))
            for _ in range(400)
        ]
    )
    spread = draws.std(0)
    # the mean of a ratio is off by the order of its variance
    assert ((draws.mean(0) - shares).abs() <= 5 * spread / 20 + 2 * spread.square()).all()
    assert (5 * spread / 20 < 0.02).all()


def test_sigma_scales_the_kernel():
    """w = sigma w' makes the kernel exp(-sigma^2 |q - k|^2 / 2)."""
    query, key, value = draw_inputs()
    attention = rfa(num_features=20_000).eval()
    with torch.no_grad():
        attention.sigma.copy_(
            torch.tensor([0.5, 1.0, 1.5])[:, None, None].expand_as(attention.sigma)
        )
    out = attention(query, key, value)
    for head, sigma in enumerate((0.5, 1.0, 1.5)):
        weights = gaussian(sigma * unit(query[:, head]), sigma * unit(key[:, head]))
        target = weights @ value[:, head] / weights.sum(-1, keepdim=True)
        assert (out[:, head] - target).norm() < 0.03 * target.norm()


def test_the_norm_of_the_inputs_does_not_matter():
    query, key, value = draw_inputs()
    attention = rfa().eval()
    assert_close(
        attention(100 * query, 0.01 * key, value),
        attention(query, key, value),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_zero_vectors_are_finite(dtype):
    attention = rfa().to(dtype).eval()
    inputs = [torch.zeros(1, H, 2, E, dtype=dtype, requires_grad=True) for _ in range(3)]
    out = attention(*inputs)
    out.sum().backward()
    assert out.isfinite().all() and all(x.grad.isfinite().all() for x in inputs)


def test_training_walks_through_the_pool_and_evaluation_stays():
    inputs = draw_inputs()
    attention = rfa()
    still = attention.eval()(*inputs)
    assert torch.equal(attention(*inputs), still)
    attention.train()
    walk = [attention(*inputs) for _ in range(10)]
    assert all(torch.equal(a, b) for a, b in zip(walk[:5], walk[5:], strict=True))  # a circle
    assert torch.equal(walk[4], still)
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(walk[:5]) for b in walk[:i])
    assert torch.equal(attention(*inputs), walk[0])
    assert torch.equal(attention.eval()(*inputs), still)


def test_without_redraw_training_stays_too():
    attention, inputs = rfa(redraw=False).train(), draw_inputs()
    assert torch.equal(attention(*inputs), attention(*inputs))
    assert torch.equal(attention(*inputs), attention.eval()(*inputs))


def test_a_checkpoint_resumes_the_walk():
    walked, other, inputs = rfa().train(), rfa().train(), draw_inputs()
    for _ in range(3):
        walked(*inputs)
    other.load_state_dict(walked.state_dict())
    assert torch.equal(other(*inputs), walked(*inputs))
    assert other.pool_index.item() == 4


def test_sigma_is_learnt_for_each_head_and_channel():
    attention = rfa().train()
    attention(*draw_inputs()).square().sum().backward()
    assert attention.sigma.shape[:2] == (H, E)
    assert (attention.sigma.grad.abs() > 0).all()


def test_every_key_reaches_every_query():
    query, key, value = draw_inputs()
    attention, moved = rfa(num_features=1024).eval(), value.clone()
    moved[:, :, -1] += 1
    assert (attention(query, key, moved) - attention(query, key, value) > 0.001).all()
