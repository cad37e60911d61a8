"""The iterated inverse against its limit, and what a few steps leave of it."""

import pytest
import torch
from torch.testing import assert_close

from macformer.ops import iterated_solve
from macformer.ops.iterated_inverse import iterated_solve_reference


def iterated_inverse(matrix, *, num_steps):
    """Solve for the identity."""
    eye = torch.eye(matrix.shape[-2], dtype=matrix.dtype).expand(*matrix.shape[:-2], -1, -1)
    return iterated_solve(matrix, eye, num_steps=num_steps)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (7, 4), (4, 7)], ids=str)
def test_many_steps_reach_the_pseudo_inverse(shape):
    matrix = torch.rand(2, 3, *shape, dtype=torch.float64) + torch.eye(*shape)
    value = torch.randn(2, 3, shape[0], 2, dtype=torch.float64)
    out = iterated_solve(matrix, value, num_steps=25)
    assert_close(out, iterated_solve_reference(matrix, value))


@pytest.mark.parametrize("num_steps", [0, 1, 2, 6])
def test_steps_are_those_of_the_published_form(num_steps):
    a = torch.rand(2, 3, 5, 5, dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64)
    z = a.mT / (a.sum(-1).amax(-1) * a.sum(-2).amax(-1))[..., None, None]
    for _ in range(num_steps):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    assert_close(iterated_inverse(a, num_steps=num_steps), z)


def test_zero_rows_and_columns_stay_zero():
    """The rest is inverted as if they were not there, and a matrix of zeros stays finite."""
    small = torch.rand(2, 3, 4, dtype=torch.float64) + torch.eye(3, 4)
    matrix = torch.zeros(2, 7, 7, dtype=torch.float64)
    matrix[:, 2:5, 1:5] = small
    expected = torch.zeros_like(matrix)
    expected[:, 1:5, 2:5] = iterated_inverse(small, num_steps=6)
    assert_close(iterated_inverse(matrix, num_steps=6), expected)
    zeros = torch.zeros(2, 2, requires_grad=True)
    inverse = iterated_inverse(zeros, num_steps=6)
    inverse.sum().backward()
    assert zeros.grad is not None and zeros.grad.isfinite().all() and (inverse == 0).all()


def test_a_step_by_hand():
    """A = 2: Z0 = 1/2 is the inverse already. A = diag(2, 1): Z0 = diag(1/2, 1/4), and so AZ = 1/4
    becomes Z = 1/16 (13 - 15/4 + 7/16 - 1/64)."""
    assert iterated_inverse(torch.tensor([[2.0]]), num_steps=0).item() == 0.5
    assert_close(
        iterated_inverse(torch.tensor([2.0, 1.0]).diag(), num_steps=1),
        torch.tensor([0.5, (13 - 15 / 4 + 7 / 16 - 1 / 64) / 16]).diag(),
    )


def test_each_matrix_has_its_own_start():
    matrices = torch.rand(3, 5, 5, dtype=torch.float64) * torch.tensor([1, 10, 100])[:, None, None]
    alone = torch.cat([iterated_inverse(matrix[None], num_steps=2) for matrix in matrices])
    assert_close(iterated_inverse(matrices, num_steps=2), alone)
    scaled = iterated_inverse(100 * matrices, num_steps=2) * 100
    assert_close(scaled, alone)


def test_gradients_are_those_of_the_steps_taken():
    matrix = torch.rand(2, 4, 3, dtype=torch.float64, requires_grad=True)
    value = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, v: iterated_solve(a, v, num_steps=3), (matrix, value))


@pytest.mark.parametrize("spread", [1e-3, 0.05, 1.0])
def test_float32_is_enough_for_landmarks_of_softmax(spread):
    """Also where their weights are almost uniform, and most singular values almost zero."""
    q, k = spread * torch.randn(2, 4, 128, 32, dtype=torch.float64)
    weights, value = (q @ k.mT / 32**0.5).softmax(-1), torch.randn(4, 128, 32, dtype=torch.float64)
    exact = iterated_solve(weights, value, num_steps=6)
    out = iterated_solve(weights.float(), value.float(), num_steps=6)
    assert (out - exact).norm() < 2e-4 * exact.norm()


def test_half_precision_is_inverted_in_float32():
    matrix = (torch.rand(5, 5) + torch.eye(5)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inverse = iterated_inverse(matrix, num_steps=10)
    assert inverse.dtype == torch.bfloat16
    assert_close(inverse, iterated_inverse(matrix.float(), num_steps=10).bfloat16())
