"""The contract of every attention: what its output and its gradients may depend on.

``pytest macformer/check/suite --config-dir DIR`` adds the rows in DIR/attention/*.yaml. Each
row is tried at the sizes of its YAML and, where these exceed the few tokens here, at small ones.
"""

import copy
import math
import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.testing import assert_close

# Padding of 13 keys in two examples: behind their tokens, and also between and before them.
BEHIND = torch.arange(13) >= torch.tensor([[9], [12]])
BETWEEN = torch.zeros(2, 13, dtype=torch.bool)
BETWEEN[0, [0, 4, 12]] = BETWEEN[1, [1, 2, 3, 7]] = True
MASKS = pytest.mark.parametrize("mask", [BEHIND, BETWEEN], ids=["behind", "between"])


def of_queries(mask: Tensor, query: Tensor) -> Tensor:
    """Return where queries are padding: where keys are if L = S, and nowhere otherwise."""
    same_length = query.shape[2] == mask.shape[1]
    return mask if same_length else mask.new_zeros(len(mask), query.shape[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_output_has_the_shape_of_queries_and_values(subject, dtype):
    attention = copy.deepcopy(subject.attention).to(dtype)
    for query_len in subject.query_lengths:
        query, key, value = (x.to(dtype) for x in subject.draw(query_len))
        for mask in (None, BEHIND):
            out = attention(query, key, value, key_padding_mask=mask)
            assert out.shape == (*query.shape[:3], value.shape[-1]) and out.dtype == dtype
            present = ~of_queries(BEHIND, query)[:, None, :, None].expand_as(out)
            assert out[present].isfinite().all()


class Observed(NamedTuple):
    """What present queries make of their inputs, and what flows back."""

    out: Tensor
    input_grads: list[Tensor]
    parameter_grads: dict[str, Tensor | None]


def observe(attention: nn.Module, inputs: list[Tensor], mask: Tensor | None, mode: str) -> Observed:
    module = copy.deepcopy(attention).train(mode == "training")
    torch.manual_seed(1)
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = module(*leaves, key_padding_mask=mask)
    if mask is not None:
        out = torch.where(of_queries(mask, inputs[0])[:, None, :, None], 0, out)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).cos())
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
    return Observed(out.detach(), grads, {n: p.grad for n, p in module.named_parameters()})


@MASKS
@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_padding_is_inert(subject, mask, mode):
    """Neither garbage nor what is not finite reaches present tokens, forward or backward."""
    for query_len in subject.query_lengths:
        inputs = subject.draw(query_len)
        padded = [m[:, None, :, None] for m in (of_queries(mask, inputs[0]), mask, mask)]
        expected = observe(subject.attention, inputs, mask, mode)
        for grad, where in zip(expected.input_grads, padded, strict=True):
            assert_close(torch.where(where, grad, 0), torch.zeros_like(grad))
        for poison in (1e3, math.nan, math.inf):
            poisoned = [
                torch.where(where, poison * torch.rand_like(x), x)
                for x, where in zip(inputs, padded, strict=True)
            ]
            assert_close(observe(subject.attention, poisoned, mask, mode), expected)


def assert_equals_cutting(subject, mask: Tensor) -> None:
    for query_len in subject.query_lengths:
        query, key, value = subject.draw(query_len)
        padded_queries = of_queries(mask, query)
        out = subject.attention(query, key, value, key_padding_mask=mask)
        for b in range(len(mask)):
            q = query[b : b + 1, :, ~padded_queries[b]]
            k, v = (x[b : b + 1, :, ~mask[b]] for x in (key, value))
            assert_close(out[b : b + 1, :, ~padded_queries[b]], subject.attention(q, k, v))


def test_padding_behind_equals_cutting_it_off(subject):
    assert_equals_cutting(subject, BEHIND)


def train(attention: nn.Module, inputs: list[Tensor], mask: Tensor | None, seed: int) -> Tensor:
    """Return the output of a first step of training that draws from a seed."""
    module = copy.deepcopy(attention).train()
    torch.manual_seed(seed)
    return module(*inputs, key_padding_mask=mask)


def test_padding_behind_equals_cutting_it_off_in_training(subject):
    """Example by example, for some rows learn from a batch, and unless the row draws."""
    for query_len in subject.query_lengths:
        inputs = subject.draw(query_len)
        if not torch.equal(*(train(subject.attention, inputs, None, seed) for seed in (1, 2))):
            return
        padded_queries = of_queries(BEHIND, inputs[0])
        for b in range(len(BEHIND)):
            present = [~where[b] for where in (padded_queries, BEHIND, BEHIND)]
            alone = [x[b : b + 1] for x in inputs]
            cut = [x[:, :, where] for x, where in zip(alone, present, strict=True)]
            out = train(subject.attention, alone, BEHIND[b : b + 1], 1)
            assert_close(out[:, :, present[0]], train(subject.attention, cut, None, 1))


def test_only_a_row_that_says_positional_tells_padding_between_from_none(subject):
    if not subject.positional:
        assert_equals_cutting(subject, BETWEEN)
    elif subject.at_telling_sizes:
        with pytest.raises(AssertionError, match="not close"):
            assert_equals_cutting(subject, BETWEEN)


def test_only_a_row_that_says_self_attention_only_refuses_other_queries(subject):
    """A row that declares it must refuse other queries.

    Whether the method needs the declaration cannot be tested: that is left to who reads the row.
    """
    if subject.self_attention_only:
        with pytest.raises(ValueError, match="11"):
            subject.attention(*subject.draw(11))
    else:
        assert subject.attention(*subject.draw(11)).shape[2] == 11


@pytest.mark.parametrize("num_tokens", [(3, 2), (10, 3)], ids=str)
def test_output_does_not_depend_on_how_far_a_batch_is_padded(subject, num_tokens):
    """Blocks and landmarks are counted in tokens: no limit lies in the padded length."""
    inputs = subject.draw(17, key_len=17)
    present = [[x[b : b + 1, :, :n] for x in inputs] for b, n in enumerate(num_tokens)]
    expected = [subject.attention(*tokens) for tokens in present]
    for length in sorted({max(num_tokens), 4, 5, 13, 17} - set(range(max(num_tokens)))):
        mask = torch.arange(length) >= torch.tensor(num_tokens)[:, None]
        out = subject.attention(*(x[:, :, :length] for x in inputs), key_padding_mask=mask)
        for b, n in enumerate(num_tokens):
            assert_close(out[b : b + 1, :, :n], expected[b])


@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_a_mask_without_padding_is_no_mask(subject, mode):
    """Forward and backward: where no row of a task has padding there is no mask."""
    full = torch.zeros(2, 13, dtype=torch.bool)
    for query_len in subject.query_lengths:
        inputs = subject.draw(query_len)
        expected = observe(subject.attention, inputs, full, mode)
        assert_close(observe(subject.attention, inputs, None, mode), expected)


def test_a_fully_padded_example_stays_finite(subject):
    mask = torch.tensor([True, False])[:, None].expand(2, 13)
    for query_len in subject.query_lengths:
        inputs = [x.requires_grad_() for x in subject.draw(query_len)]
        attention = copy.deepcopy(subject.attention)
        out = attention(*inputs, key_padding_mask=mask)
        out.square().sum().backward()
        assert out.isfinite().all()
        leaves = [*inputs, *attention.parameters()]
        assert all(x.grad is None or x.grad.isfinite().all() for x in leaves)


@pytest.mark.parametrize("size", [1, 30], ids=["alike", "huge"])
def test_examples_are_independent(subject, size):
    for query_len in subject.query_lengths:
        inputs = subject.draw(query_len)
        alone = subject.attention(*(x[:1] for x in inputs), key_padding_mask=BEHIND[:1])
        mates = [torch.cat([x[:1], size * torch.randn_like(x[1:])]) for x in inputs]
        out = subject.attention(*mates, key_padding_mask=BEHIND)
        where = ~of_queries(BEHIND, inputs[0])[0]
        assert_close(out[:1, :, where], alone[:, :, where])


def test_gradients_are_those_of_central_differences(subject):
    """Along a random direction of each input and parameter: a path that is cut off shows."""
    attention = copy.deepcopy(subject.attention)
    inputs = [0.5 * x for x in subject.draw(subject.query_lengths[0])]
    tensors = [*inputs, *attention.parameters()]
    for x in tensors:
        x.requires_grad_()
    weight = torch.randn_like(attention(*inputs))

    def loss() -> Tensor:
        return (attention(*inputs) * weight).sum()

    def loss_at(x: Tensor, direction: Tensor, step: float) -> Tensor:
        with torch.no_grad():
            start = x.clone()
            x.add_(direction, alpha=step)
            moved = loss()
            x.copy_(start)
        return moved

    grads = torch.autograd.grad(loss(), tensors, allow_unused=True)
    step = 1e-7  # short, so that no relu's edge lies within
    for x, grad in zip(tensors, grads, strict=True):
        direction = torch.randn_like(x)
        difference = loss_at(x, direction, step) - loss_at(x, direction, -step)
        slope = torch.zeros_like(difference) if grad is None else (grad * direction).sum()
        # rounding leaves 1e-7 of a difference; a path that is cut off misses a share of the slope
        assert_close(slope, difference / (2 * step), rtol=1e-4, atol=1e-6)


def test_forward_mode_is_right_or_refused(subject):
    """An operator that knows reverse mode alone loses tangents in silence, unless it looks."""
    inputs = [0.5 * x for x in subject.draw(subject.query_lengths[0])]
    directions = [torch.randn_like(x) for x in inputs]
    attention, step = copy.deepcopy(subject.attention).requires_grad_(False), 1e-7
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(inputs, directions, strict=True)]
        try:
            tangent = forward_ad.unpack_dual(attention(*duals)).tangent
        except RuntimeError as refusal:  # NotImplementedError is one
            assert re.search("forward.*(mode|AD)", str(refusal))
            return
    ahead, behind = (
        attention(*(x + sign * step * d for x, d in zip(inputs, directions, strict=True)))
        for sign in (1, -1)
    )
    tangent = torch.zeros_like(ahead) if tangent is None else tangent
    assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-5)


def test_evaluation_draws_nothing(subject):
    inputs = subject.draw(13)
    out = subject.attention(*inputs)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert torch.equal(subject.attention(*inputs), out)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_leaves_the_generator_its_seed(subject):
    """Who sets one makes all that draw later draw the same, dropout at every step among them."""
    states = []
    for seed in (1, 2):
        train(subject.attention, subject.draw(13), None, seed)
        states.append(torch.get_rng_state())
    assert not torch.equal(*states)


def test_declarations_are_yes_or_no(subject):
    for name in ("self_attention_only", "positional", "joint_queries"):
        assert isinstance(getattr(subject.attention, name, False), bool)
