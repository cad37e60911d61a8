"""The softmax over a union of parts: torch's kernel and plain torch, against one row of weights."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from macformer.ops import flash, union
from macformer.ops.band import TILE, band_parts
from macformer.ops.union import Part, Picked, View, bias, span, union_attention

B, H, L, E = 2, 3, 7, 5
SCALE = 0.7
EVERYWHERE = span(0, None)


@pytest.fixture(params=["kernel", "plain torch"])
def implementation(request, monkeypatch):
    if request.param == "plain torch":
        monkeypatch.setattr(union, "attend", flash.attend_reference)
        monkeypatch.setattr(union, "attend_backward", flash.attend_backward_reference)


def draw(num_keys: int = L, value_dim: int = E) -> list[Tensor]:
    shapes = ((L, E), (num_keys, E), (num_keys, value_dim))
    return [torch.randn(B, H, *shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def masked(allowed: Tensor) -> tuple[Tensor]:
    return (bias(allowed, torch.float64),)


def dense(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    logits = (SCALE * query @ key.mT).masked_fill(~allowed, -torch.inf)
    return logits.softmax(-1).nan_to_num() @ value


def assert_same(out: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    assert_close(out, expected)
    grad = torch.randn_like(out)
    wanted = torch.autograd.grad(expected, inputs, grad)
    assert_close(torch.autograd.grad(out, inputs, grad), wanted)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("value_dim", [E, E + 2, E - 2])
def test_layers_share_one_softmax(value_dim):
    inputs = draw(11, value_dim)
    allowed = torch.rand(B, 1, 1, 11) < 0.6
    allowed[..., 0] = True
    sets = [(0, 3), (3, 4), (4, 11)]
    layers = [[Part(EVERYWHERE, span(*s), masked(allowed[..., slice(*s)]))] for s in sets]
    out = union_attention(*inputs, layers, scale=SCALE)
    assert_same(out, dense(*inputs, allowed), inputs)


@pytest.mark.usefixtures("implementation")
def test_parts_of_a_layer_hold_queries_of_their_own():
    """A later layer need not have all."""
    inputs = draw()
    first = [Part(span(0, 3), span(0, 2)), Part(span(3, L), Picked(torch.tensor([6, 1])))]
    second = [Part(span(2, 5), span(3, 5))]
    allowed = torch.zeros(L, L, dtype=torch.bool)
    allowed[:3, :2] = allowed[3:, 6] = allowed[3:, 1] = allowed[2:5, 3:5] = True
    out = union_attention(*inputs, [first, second], scale=SCALE)
    assert_same(out, dense(*inputs, allowed), inputs)


@pytest.mark.usefixtures("implementation")
def test_a_key_in_two_layers_counts_twice():
    query, key, value = inputs = draw()
    layers = [[Part(EVERYWHERE, EVERYWHERE)], [Part(EVERYWHERE, span(0, 2))]]
    out = union_attention(*inputs, layers, scale=1.0)
    twice = torch.where(torch.arange(L) < 2, 2.0, 1.0).log()
    assert_same(out, (query @ key.mT + twice).softmax(-1) @ value, inputs)


@pytest.mark.usefixtures("implementation")
def test_queries_that_see_nothing_receive_zero_and_pass_no_gradient_on():
    inputs = draw()
    nothing = torch.arange(L) < 4
    layers = [[Part(EVERYWHERE, s, masked(~nothing[None, None, :, None]))] for s in SETS]
    out = union_attention(*inputs, layers, scale=SCALE)
    assert (out[:, :, :4] == 0).all()
    assert_close(out, dense(*inputs, ~nothing[:, None].expand(L, L)))
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert all(x.isfinite().all() for x in gradients)
    assert (gradients[0][:, :, :4] == 0).all()


SETS = (span(0, 3), span(3, L))


@pytest.mark.usefixtures("implementation")
def test_masks_of_a_part_are_summed():
    inputs = draw()
    columns, rows = torch.rand(B, 1, 1, L) < 0.7, torch.rand(L, L) < 0.7
    columns[..., 0] = rows[:, 0] = True
    layer = [Part(EVERYWHERE, EVERYWHERE, masked(columns) + masked(rows[None, None]))]
    out = union_attention(*inputs, [layer], scale=SCALE)
    assert_same(out, dense(*inputs, columns & rows), inputs)


@pytest.mark.usefixtures("implementation")
def test_a_view_may_take_rows_in_another_order():
    inputs = [torch.randn(B, H, 12, E, dtype=torch.float64).requires_grad_() for _ in range(3)]
    columns = View(lambda x: x.unflatten(2, (-1, 4)).transpose(2, 3).flatten(0, 1))
    places = torch.arange(12)
    allowed = places % 4 == places[:, None] % 4
    out = union_attention(*inputs, [[Part(columns, columns)]], scale=SCALE)
    assert_same(out, dense(*inputs, allowed), inputs)


def test_large_logits_neither_overflow_nor_vanish():
    query, key, value = draw(2 * L)
    factors = torch.where(torch.arange(2 * L) < L, 500.0, 1.0)[:, None]
    layers = [[Part(EVERYWHERE, span(0, L))], [Part(EVERYWHERE, span(L, None))]]
    out = union_attention(query, factors * key, value, layers, scale=1.0)
    assert_close(out, (query @ (factors * key).mT).softmax(-1) @ value)


@pytest.mark.usefixtures("implementation")
def test_half_precision_is_summed_in_float32():
    inputs = [x.detach().to(torch.bfloat16).requires_grad_() for x in draw()]
    out = union_attention(*inputs, [[Part(EVERYWHERE, s)] for s in SETS], scale=SCALE)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    expected = dense(*wide, torch.ones(L, L, dtype=torch.bool))
    assert out.dtype == torch.bfloat16
    assert_close(out.double(), expected, rtol=0.02, atol=0.02)
    got = torch.autograd.grad(out.sum(), inputs)
    for x, y in zip(got, torch.autograd.grad(expected.sum(), wide), strict=True):
        assert x.dtype == torch.bfloat16
        assert_close(x.double(), y, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(TILE + 9, TILE + 9), (40, 7), (9, 60)])
@pytest.mark.parametrize("window", [1, 2, 15, 31, 32, 34])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("with_itself", [False, True])
def test_a_band_is_the_window_of_each_query(num_queries, num_keys, window, is_causal, with_itself):
    """Each part's mask, put where its queries and keys stand."""
    query, key = torch.zeros(1, 1, num_queries, 1), torch.zeros(1, 1, num_keys, 1)
    options = {"window": window, "is_causal": is_causal, "with_itself": with_itself}
    i, j = torch.arange(num_queries)[:, None], torch.arange(num_keys)
    expected = (j - i > window // 2 - window) & (j - i <= (0 if is_causal else window // 2))
    expected &= (j != i) | with_itself
    seen = torch.zeros(num_queries, num_keys, dtype=torch.bool)
    for part in band_parts(query, key, allowed=None, **options):
        rows = part.queries.read(i[None, None])[0, 0]
        seen[rows, part.keys.read(j[None, None, :, None])[0, 0, :, 0]] = part.mask()[0, 0] == 0
    assert torch.equal(seen, expected)
