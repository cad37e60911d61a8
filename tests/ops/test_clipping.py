"""Clipped norms: values and gradients against autograd's in float64, and what stays finite."""

import pytest
import torch

from macformer.ops.clipping import clip_norm

MAX_NORM = 2.0


def clip_by_definition(x):
    norm = x.square().sum(-1, keepdim=True).sqrt()
    return torch.where(norm < MAX_NORM, x, x * MAX_NORM / norm)


@pytest.mark.parametrize("scale", [0.2, 0.5, 3.0], ids=["inside", "both", "outside"])
def test_values_and_gradients_are_those_of_the_definition(scale):
    generator = torch.Generator().manual_seed(0)
    x = scale * torch.randn(2, 3, 50, 16, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    grad = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    clipped, norm = clip_norm(x, max_norm=MAX_NORM)
    expected = clip_by_definition(x)
    torch.testing.assert_close(clipped, expected)
    torch.testing.assert_close(norm[..., 0], x.norm(dim=-1))
    assert not norm.requires_grad
    torch.testing.assert_close(
        torch.autograd.grad(clipped, x, grad), torch.autograd.grad(expected, x, grad)
    )


def test_a_vector_of_zeros_passes_with_its_gradient():
    x = torch.zeros(1, 8, requires_grad=True)
    clipped, _ = clip_norm(x, max_norm=MAX_NORM)
    (grad,) = torch.autograd.grad(clipped, x, torch.ones(1, 8))
    assert clipped.count_nonzero() == 0
    assert torch.equal(grad, torch.ones(1, 8))


def test_half_precision_is_clipped_by_norms_in_float32():
    x = torch.full((1, 64), 60.0, dtype=torch.float16, requires_grad=True)  # squares exceed 65,504
    clipped, norm = clip_norm(x, max_norm=MAX_NORM)
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(480.0)
    torch.testing.assert_close(clipped, torch.full_like(x, 0.25))
    (grad,) = torch.autograd.grad(clipped.sum(), x)
    assert grad.dtype == x.dtype
    torch.testing.assert_close(
        grad, torch.zeros_like(x), atol=1e-4, rtol=0
    )  # along x: none is left


def test_examples_are_differentiated_one_by_one():
    x = 3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    per_example = torch.func.vmap(
        torch.func.grad(lambda row: clip_norm(row, max_norm=MAX_NORM)[0].pow(3).sum())
    )(x)
    whole = torch.func.grad(lambda rows: clip_norm(rows, max_norm=MAX_NORM)[0].pow(3).sum())(x)
    torch.testing.assert_close(per_example, whole)
