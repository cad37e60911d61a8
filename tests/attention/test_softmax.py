"""Softmax attention by hand."""

import math

import jaxtyping
import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.testing import assert_close

from macformer.attention import SoftmaxAttention, softmax
from macformer.ops import sdpa


def test_weights_by_hand():
    """Keys of log 3 and 0 have weights 3/4 and 1/4."""
    key = torch.tensor([math.log(3), 0.0]).view(1, 1, 2, 1)
    value = torch.tensor([4.0, 8.0]).view(1, 1, 2, 1)
    out = SoftmaxAttention(num_heads=1, head_dim=1, dropout=0.0)(torch.ones(1, 1, 1, 1), key, value)
    assert out.item() == pytest.approx((3 * 4 + 8) / 4)


def test_scale_is_the_root_of_the_head_dim():
    """q.k = 4 log 3 at width 16 counts as log 3."""
    query = torch.full((1, 1, 1, 16), 0.5)
    key = torch.stack([torch.full((16,), math.log(3) / 2), torch.zeros(16)]).view(1, 1, 2, 16)
    value = torch.tensor([4.0, 8.0]).view(1, 1, 2, 1)
    out = SoftmaxAttention(num_heads=1, head_dim=16, dropout=0.0)(query, key, value)
    assert out.item() == pytest.approx(5)


def test_every_key_reaches_every_query():
    query, key, value = torch.randn(3, 1, 1, 7, 5)
    attention = SoftmaxAttention(num_heads=1, head_dim=5, dropout=0.0)
    moved = value.clone()
    moved[..., -1, :] += 1
    assert (attention(query, key, moved) > attention(query, key, value)).all()


def test_a_fully_padded_row_is_zero():
    query, key, value = torch.randn(3, 2, 1, 7, 5)
    mask = torch.tensor([True, False])[:, None].expand(2, 7)
    out = SoftmaxAttention(num_heads=1, head_dim=5, dropout=0.0)(
        query, key, value, key_padding_mask=mask
    )
    assert_close(out[0], torch.zeros_like(out[0]))
    assert out[1].abs().sum() > 0


def test_weights_are_dropped_in_training_alone():
    """One key has all the weight: it is dropped, or counts 1 / (1 - 0.75)."""
    query, value = torch.randn(1, 1, 1000, 2), torch.ones(1, 1, 1, 1)
    attention = SoftmaxAttention(num_heads=1, head_dim=2, dropout=0.75)
    out = attention(query, query[..., :1, :], value)
    assert set(out.unique().tolist()) == {0.0, 4.0}
    assert abs(out.mean().item() - 1) < 5 * math.sqrt(3 / 1000)  # variance 4 - 1
    assert_close(attention.eval()(query, query[..., :1, :], value), torch.ones_like(out))


CUDNN, FLASH, EFFICIENT, MATH = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


@pytest.mark.parametrize(
    ("able", "masked", "num_keys", "expected"),
    [
        ({"cudnn", "flash", "efficient"}, False, 1024, CUDNN),
        ({"flash", "efficient"}, False, 1024, FLASH),
        ({"cudnn", "efficient"}, True, 1024, CUDNN),
        ({"cudnn", "efficient"}, True, 1984, EFFICIENT),  # 15 blocks and a half
        ({"cudnn", "efficient"}, False, 1984, CUDNN),
        ({"efficient"}, True, 1024, EFFICIENT),
        (set(), True, 1024, MATH),
    ],
)
def test_the_first_kernel_that_takes_the_inputs_is_chosen(
    monkeypatch, able, masked, num_keys, expected
):
    for name in ("cudnn", "flash", "efficient"):
        monkeypatch.setattr(
            softmax, f"can_use_{name}_attention", lambda inputs, name=name: name in able
        )
    query, key = torch.randn(1, 1, 2, 8), torch.randn(1, 1, num_keys, 8)
    mask = torch.ones(1, 1, 1, num_keys, dtype=torch.bool) if masked else None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert softmax.fastest_kernel(query, key, key, mask, dropout=0.0) == expected


@pytest.mark.parametrize(("major", "leads"), [(8, False), (9, True), (10, True), (12, False)])
def test_cudnn_leads_where_torch_prefers_it(monkeypatch, major, leads):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    assert (CUDNN in softmax.candidates(torch.randn(1, 1, 128, 8), None)) == leads


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_softmax_of_a_gpu_can_stand_in_a_compiled_step(monkeypatch, masked):
    """Traced whole, over widths: cuDNN is left out of those of a half block, if there is a mask."""
    named = []

    def keep(graph, inputs):
        enters = [node for node in graph.graph.nodes if "_sdpa_kernel" in str(node.target)]
        kernels = enters[0].args[0] if enters else ()
        named.append([getattr(SDPBackend, name.args[0]) for name in kernels])
        return graph.forward

    attention = SoftmaxAttention(num_heads=2, head_dim=8, dropout=0.0)
    lengths = (128, 192, 256, 320)
    inputs = [torch.randn(3, 2, 2, length, 8) for length in lengths]
    masks = [torch.arange(n) >= torch.tensor([[n], [100]]) if masked else None for n in lengths]
    cases = list(zip(inputs, masks, strict=True))
    expected = [attention(*x, key_padding_mask=mask) for x, mask in cases]
    for module in (softmax, sdpa):
        monkeypatch.setattr(module, "has_choice", lambda query: True)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    torch.compiler.reset()
    compiled = torch.compile(attention, fullgraph=True, backend=keep)
    for (x, mask), out in zip(cases, expected, strict=True):
        assert_close(compiled(*x, key_padding_mask=mask), out)
    assert named == ([[], [FLASH, EFFICIENT, MATH], []] if masked else [[], []])


@pytest.mark.gpu
@pytest.mark.parametrize("masked", [False, True])
def test_the_chosen_kernel_is_named_for_each_phase(masked):
    query, key, value = torch.randn(3, 2, 2, 256, 32, device="cuda", dtype=torch.bfloat16)
    mask = torch.zeros(2, 256, dtype=torch.bool, device="cuda") if masked else None
    attention = SoftmaxAttention(num_heads=2, head_dim=32, dropout=0.1)
    attention(query, key, value, key_padding_mask=mask)
    attention.eval()(query, key, value, key_padding_mask=mask)
    assert set(attention.kernels) == {"train", "inference"}
    assert "math" not in attention.kernels.values()
