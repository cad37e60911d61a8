"""Softmax attention with its normaliser: torch's kernel, plain torch, and the definition."""

import pytest
import torch
from torch.testing import assert_close

from macformer.ops import flash

N, G, L, S, E = 2, 3, 5, 7, 4
SCALE = 0.6
IMPLEMENTATIONS = {
    "kernel": (flash.attend, flash.attend_backward),
    "plain torch": (flash.attend_reference, flash.attend_backward_reference),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return IMPLEMENTATIONS[request.param]


def draw(*lengths: int) -> list[torch.Tensor]:
    return [torch.randn(N, G, length, E, dtype=torch.float64) for length in lengths]


def test_output_normaliser_and_gradients_are_those_of_the_definition(implementation):
    attend, backward = implementation
    inputs = [x.requires_grad_() for x in draw(L, S, S)]
    mask = torch.randn(1, G, 1, S, dtype=torch.float64)
    logits = SCALE * inputs[0] @ inputs[1].mT + mask
    expected = logits.softmax(-1) @ inputs[2]
    (grad,) = draw(L)
    wanted = torch.autograd.grad(expected, inputs, grad)

    tensors = [x.detach() for x in inputs]
    out, normaliser = attend(*tensors, mask, scale=SCALE)
    assert_close(out, expected.detach())
    assert_close(normaliser, logits.detach().logsumexp(-1, keepdim=True))
    assert_close(backward(grad, *tensors, out, normaliser, mask, scale=SCALE), wanted)


def test_a_part_of_the_keys_has_its_share_of_the_gradients(implementation):
    attend, backward = implementation
    query, key, value, grad = draw(L, S, S, L)
    out, normaliser = attend(query, key, value, None, scale=SCALE)
    whole = backward(grad, query, key, value, out, normaliser, None, scale=SCALE)
    shares = [
        backward(grad, query, key[:, :, s], value[:, :, s], out, normaliser, None, scale=SCALE)
        for s in (slice(0, 3), slice(3, S))
    ]
    assert_close(shares[0][0] + shares[1][0], whole[0])
    for of_whole, first, second in zip(whole[1:], shares[0][1:], shares[1][1:], strict=True):
        assert_close(torch.cat([first, second], 2), of_whole)


def test_half_precision_is_weighed_in_float32(implementation):
    attend, _ = implementation
    query, key, value = (x.bfloat16() for x in draw(L, S, S))
    out, normaliser = attend(query, key, value, None, scale=SCALE)
    assert out.dtype == torch.bfloat16
    assert normaliser.dtype == torch.float32
    exact, _ = attend(query.double(), key.double(), value.double(), None, scale=SCALE)
    assert_close(out.double(), exact, rtol=0.02, atol=0.02)


def test_vectors_need_not_lie_in_one_piece(implementation):
    attend, backward = implementation
    tensors = draw(L, S, S)
    apart = [x.mT.contiguous().mT for x in tensors]
    out, normaliser = attend(*tensors, None, scale=SCALE)
    assert_close(attend(*apart, None, scale=SCALE), (out, normaliser))
    grad = torch.ones(1, dtype=torch.float64)
    expected = backward(grad + 0 * out, *tensors, out, normaliser, None, scale=SCALE)
    got = backward(
        grad.expand_as(out), *apart, out.mT.contiguous().mT, normaliser, None, scale=SCALE
    )
    assert_close(got, expected)


@pytest.mark.parametrize("is_grouped", [False, True])
@pytest.mark.parametrize(("num_queries", "num_keys"), [(0, S), (L, 0), (0, 0)])
def test_without_queries_or_keys_there_are_zeros(implementation, num_queries, num_keys, is_grouped):
    attend, backward = implementation
    query, key, value, grad = draw(num_queries, num_keys, num_keys, num_queries)
    mask = query.new_zeros(1, G if is_grouped else 1, 1, num_keys)
    out, normaliser = attend(query, key, value, mask, scale=SCALE)
    assert out.shape == query.shape and not out.any()
    assert (normaliser == flash.lowest(normaliser.dtype)).all()
    grads = backward(grad, query, key, value, out, normaliser, mask, scale=SCALE)
    for x, of_x in zip((query, key, value), grads, strict=True):
        assert of_x.shape == x.shape and not of_x.any()


def test_an_empty_batch_has_an_output(implementation):
    attend, _ = implementation
    out, normaliser = attend(*(x[:0] for x in draw(L, S, S)), None, scale=SCALE)
    assert out.shape == (0, G, L, E) and normaliser.shape == (0, G, L, 1)
