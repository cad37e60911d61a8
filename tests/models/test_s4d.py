"""The state-space mixer against its recurrence, step by step in float64."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.models import S4D

D, N = 3, 23
OPTIONS = {"state_dim": 10, "min_step": 0.01, "max_step": 0.5}


def make(**changes) -> S4D:
    return S4D(embed_dim=D, **OPTIONS | changes).double()


def recur(mixer: S4D, u: torch.Tensor, direction: int) -> torch.Tensor:
    """Run h <- exp(dt a) h + (exp(dt a) - 1) / a u token by token, and read 2 Re(c h)."""
    a = torch.complex(-mixer.log_decay.exp(), mixer.frequency)
    decay = torch.exp(a * mixer.log_step.exp()[:, None])
    c = torch.view_as_complex(mixer.output)[direction]
    state, out = torch.zeros_like(decay), []
    for token in u:
        state = decay * state + (decay - 1) / a * token[:, None]
        out.append(2 * (c * state).sum(-1).real)
    return torch.stack(out)


def by_recurrence(mixer: S4D, x: torch.Tensor) -> torch.Tensor:
    """Both directions read a token; it counts once."""
    backwards = recur(mixer, x.flip(0), 1).flip(0) - mixer.kernels(1)[1, :, 0] * x
    y = recur(mixer, x, 0) + backwards + mixer.skip * x
    return nn.functional.glu(mixer.out_proj(nn.functional.gelu(y)), dim=-1)


@pytest.mark.parametrize("length", [1, 2, 3, 4, N])
def test_output_is_that_of_the_recurrence(length):
    mixer, x = make(), torch.randn(2, length, D, dtype=torch.double)
    expected = torch.stack([by_recurrence(mixer, row) for row in x])
    assert_close(mixer(x), expected, rtol=1e-9, atol=1e-9)


def test_a_row_between_padding_is_that_row_alone():
    mixer, x = make(), torch.randn(1, N, D, dtype=torch.double)
    mask = torch.ones(1, N, dtype=torch.bool)
    mask[:, 5:16] = False
    assert_close(mixer(x, mask)[:, 5:16], mixer(x[:, 5:16]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_that_of_weights_and_output_alone(dtype):
    """Kernels and sums are those of the rounded weights in float32."""
    mixer, x = make().to(dtype), torch.randn(2, N, D).to(dtype)
    out = mixer(x)
    assert out.dtype == dtype and mixer.kernels(N).dtype == torch.float32
    expected = copy.deepcopy(mixer).double()(x.double())
    assert_close(out.double(), expected, rtol=0.02, atol=0.02)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mixer.parameters())


@pytest.mark.parametrize("length", [1, 5, 16, 17, 23])
def test_a_shorter_kernel_is_the_head_of_a_longer_one(length):
    mixer = make()
    assert_close(mixer.kernels(length), mixer.kernels(40)[..., :length], rtol=1e-9, atol=1e-12)


def test_poles_and_steps_start_as_s4d_lin():
    torch.manual_seed(0)
    mixer = S4D(embed_dim=4000, state_dim=6, min_step=0.001, max_step=0.1)
    assert_close(mixer.log_decay.exp(), torch.full((4000, 3), 0.5))
    assert_close(mixer.frequency, torch.tensor([0, math.pi, 2 * math.pi]).expand(4000, 3))
    steps = mixer.log_step.detach().sort().values
    # quantiles of a uniform draw, within five standard errors of the median's 1/2 / sqrt(4000)
    assert steps[0] >= math.log(0.001) and steps[-1] <= math.log(0.1)
    assert steps[2000].item() == pytest.approx(
        math.log(0.01), abs=5 * 0.5 * math.log(100) / 4000**0.5
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"state_dim": 7}, "state_dim is 7; an even number from 2 on"),
        ({"min_step": 0.0}, "0 < min_step <= max_step is needed, not 0.0 and 0.5"),
        ({"max_step": 0.001}, "not 0.01 and 0.001"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        make(**option)
