"""Synthesizers against dense softmax in float64."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from macformer.attention import DenseSynthesizer, RandomSynthesizer, UniformAttention

B, H, L, S, E, EV = 2, 3, 11, 13, 5, 7
MAX_SEQ_LEN = 17


def random_(**changes) -> RandomSynthesizer:
    options = {"num_heads": H, "head_dim": E, "max_seq_len": MAX_SEQ_LEN, "rank": 2} | changes
    return RandomSynthesizer(**options).double()


def dense(**changes) -> DenseSynthesizer:
    options = {"num_heads": H, "head_dim": E, "max_seq_len": MAX_SEQ_LEN} | changes
    return DenseSynthesizer(**options).double()


def draw():
    shapes = [(B, H, L, E), (B, H, S, E), (B, H, S, EV)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


MASK = torch.arange(S).expand(B, S) >= torch.tensor([[S], [4]])


def softmax(scores, padding):
    return scores.masked_fill(padding[:, None, None, :], -torch.inf).softmax(-1)


def test_random_scores_are_those_of_the_factors():
    attention, (query, key, value) = random_(), draw()
    scores = attention.query_factor[:, :L] @ attention.key_factor[:, :S].mT
    expected = softmax(scores.expand(B, H, L, S), MASK) @ value
    assert_close(attention(query, key, value, key_padding_mask=MASK), expected)


class Shapes(TorchDispatchMode):
    """Write down the last two dims of all that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen |= {tuple(x.shape[-2:]) for x in tree_leaves(out) if isinstance(x, Tensor)}
        return out


def test_random_weights_are_not_stored():
    """Nor in the backward pass; on a CPU torch stores them unless all vectors are of one width."""
    inputs = draw()
    with Shapes() as shapes:
        random_()(*inputs, key_padding_mask=MASK).sum().backward()
    assert (L, EV) in shapes.seen and (L, S) not in shapes.seen


def test_random_output_ignores_queries_and_keys():
    attention, (_, _, value) = random_(), draw()
    outs = [attention(*draw()[:2], value) for _ in range(2)]
    assert torch.equal(*outs)


def test_random_scores_have_unit_variance():
    attention = random_(num_heads=5, max_seq_len=400, rank=8)
    scores = attention.query_factor @ attention.key_factor.mT
    assert scores.var().item() == pytest.approx(1, abs=0.1)  # 6,400 factors: a deviation of 0.02


def test_zero_factors_average():
    attention, inputs = random_(), draw()
    attention.query_factor.zero_()
    uniform = UniformAttention(num_heads=H, head_dim=E)
    assert_close(attention(*inputs, key_padding_mask=MASK), uniform(*inputs, key_padding_mask=MASK))


def test_dense_scores_are_one_product_for_each_position():
    attention, inputs = dense(), draw()
    query, key, value = inputs
    assert (attention.height, attention.width) == (4, 5)  # 17 positions in a rectangle of 20
    hidden = query.clamp(min=0)
    columns = [
        (hidden @ attention.blocks[..., s // 5, None])
        * (hidden @ attention.places[..., s % 5, None])
        for s in range(S)
    ]
    expected = softmax(torch.cat(columns, dim=-1), MASK) @ value
    out = attention(query, key, value, key_padding_mask=MASK)
    assert_close(out, expected)
    direction, tensors = torch.randn_like(out), [query, value, *attention.parameters()]
    grads = torch.autograd.grad((out * direction).sum(), tensors)
    assert_close(grads, torch.autograd.grad((expected * direction).sum(), tensors))


def test_dense_scores_do_not_look_at_keys():
    attention, (query, _, value) = dense(), draw()
    outs = [attention(query, draw()[1], value) for _ in range(2)]
    assert torch.equal(*outs)


@pytest.mark.parametrize("build", [random_, dense])
def test_a_row_beyond_the_table_is_refused(build):
    with pytest.raises(ValueError, match="got 13 tokens, but max_seq_len is 12"):
        build(max_seq_len=12)(*draw())
