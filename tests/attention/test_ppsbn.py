"""The two stages of ppSBN, each against an independent formula."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.attention import PPSBN, BatchPreSBN, PostSBN, PreSBN, SoftmaxAttention

B, H, N, E = 2, 3, 11, 7
batch_pre_sbn = partial(BatchPreSBN, momentum=0.1)


def ppsbn(**changes) -> PPSBN:
    options = {"attention": partial(SoftmaxAttention, dropout=0.0), "pre": PreSBN, "post": None}
    return PPSBN(num_heads=H, head_dim=E, max_seq_len=99, **(options | changes))


def pre_sbn(factory=PreSBN):
    return factory(num_heads=H, head_dim=E)


def post_sbn(*, gamma=True, beta=True):
    return PostSBN(num_heads=H, head_dim=E, gamma=gamma, beta=beta)


def test_pre_stage_is_the_authors_formula_where_that_is_defined():
    """Centre, divide by the standard deviation, divide by the norm."""
    x = torch.randn(B, H, N, E, dtype=torch.float64)
    standard = nn.functional.layer_norm(x, (E,), eps=1e-12)
    assert_close(pre_sbn()(x, None), nn.functional.normalize(standard, dim=-1))


def test_pre_stage_by_hand():
    """(1, 2, 3) less its mean is (-1, 0, 1), of norm sqrt(2)."""
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    expected = torch.tensor([-(0.5**0.5), 0.0, 0.5**0.5])
    assert_close(PreSBN(num_heads=1, head_dim=3)(x, None).flatten(), expected)


CONSTANT = [0.0, 0.1, 3.0, -1000.0]


def assert_finite(pre, x):
    out = pre_sbn(pre)(x.requires_grad_(), None)
    (out * torch.randn_like(out)).sum().backward()
    assert out.dtype == x.dtype and out.isfinite().all() and x.grad.isfinite().all()
    assert out.float().norm(dim=-1).max() < 1.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("constant", CONSTANT)
def test_constant_vectors_are_finite(constant, dtype):
    """0/0 in the authors' code. In float16, gradients are not to overflow either."""
    assert_finite(PreSBN, torch.full((B, H, N, E), constant, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("constant", CONSTANT)
def test_a_constant_batch_is_finite(constant, dtype):
    assert_finite(batch_pre_sbn, torch.full((B, H, N, E), constant, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_once(dtype):
    x = 300 * torch.randn(B, H, N, E, dtype=dtype)  # squares leave float16's range
    exact = pre_sbn()(x.double(), None)
    assert_close(pre_sbn()(x, None).double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-4)


def rows_of(x, mask):
    """Gather the unpadded positions as rows of all heads' channels."""
    return x.transpose(1, 2)[~mask].flatten(1)


def padded_batch():
    x = torch.randn(B, H, N, E, dtype=torch.float64) + 5 * torch.randn(H, 1, E).double()
    mask = torch.zeros(B, N, dtype=torch.bool)
    mask[1, 8:] = True
    mask[0, 2] = True
    return torch.where(mask[:, None, :, None], 1e4, x), mask


def test_batch_reading_is_batch_normalisation_of_unpadded_rows():
    x, mask = padded_batch()
    pre, norm = pre_sbn(batch_pre_sbn).double(), nn.BatchNorm1d(H * E, affine=False).double()
    for scale in (1.0, 3.0):  # two steps of the running statistics
        normalised = norm(scale * rows_of(x, mask))
        expected = nn.functional.normalize(normalised.view(-1, H, E), dim=-1)
        assert_close(rows_of(pre(scale * x, mask), mask), expected.flatten(1), rtol=1e-6, atol=1e-6)
    assert_close(pre.running_mean.flatten(), norm.running_mean)
    assert_close(pre.running_var.flatten(), norm.running_var)
    norm.eval(), pre.eval()
    expected = nn.functional.normalize(norm(rows_of(x, mask)).view(-1, H, E), dim=-1)
    assert_close(rows_of(pre(x, mask), mask), expected.flatten(1), rtol=1e-6, atol=1e-6)


def test_batch_reading_without_a_mask_counts_every_position():
    x, _ = padded_batch()
    nothing = torch.zeros(B, N, dtype=torch.bool)
    assert torch.equal(
        pre_sbn(batch_pre_sbn).double()(x, None), pre_sbn(batch_pre_sbn).double()(x, nothing)
    )


def test_batch_statistics_survive_a_large_mean():
    """E x^2 - (E x)^2 would have lost the variance in float32."""
    x = torch.randn(B, H, N, E, dtype=torch.float64)
    shifted = (x + 3000).float()
    expected = pre_sbn(batch_pre_sbn).double()(shifted.double(), None)
    assert_close(pre_sbn(batch_pre_sbn)(shifted, None).double(), expected, rtol=1e-3, atol=1e-3)


def test_batch_reading_depends_on_the_batch_in_training_only():
    x, mask = padded_batch()
    other = x.clone()
    other[1] = torch.randn_like(other[1])
    pre = pre_sbn(batch_pre_sbn).double()
    assert not torch.allclose(pre(x, mask)[0], pre(other, mask)[0])
    pre.eval()
    before = pre.running_mean.clone()
    assert torch.equal(pre(x, mask)[0], pre(other, mask)[0])
    assert torch.equal(pre.running_mean, before)


def test_a_fully_padded_batch_is_finite():
    pre, x = pre_sbn(batch_pre_sbn), torch.randn(B, H, N, E)
    assert pre(x, torch.ones(B, N, dtype=torch.bool)).isfinite().all()


def test_batch_reading_needs_self_attention():
    attention = ppsbn(pre=batch_pre_sbn)
    query, key = torch.randn(B, H, N, E), torch.randn(B, H, N + 2, E)
    mask = torch.zeros(B, N + 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"self-attention.* 11 queries and 13 keys"):
        attention(query, key, key, key_padding_mask=mask)
    attention(key, key, key, key_padding_mask=mask)


def test_a_pre_stage_that_declares_nothing_takes_other_queries():
    class Silent(nn.Module):
        def __init__(self, *, num_heads, head_dim):
            super().__init__()

        def forward(self, x, padding_mask):
            return x

    query, key = torch.randn(B, H, N, E), torch.randn(B, H, N + 2, E)
    assert ppsbn(pre=Silent)(query, key, key).shape == query.shape


def test_the_key_mask_tells_which_queries_count():
    attention = ppsbn(pre=batch_pre_sbn)
    x, mask = padded_batch()
    attention(x.float(), x.float(), x.float(), key_padding_mask=mask)
    assert torch.equal(attention.pre_query.running_mean, attention.pre_key.running_mean)


RANK = """
import sys, torch, torch.distributed as dist
from macformer.attention import BatchPreSBN
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
x, mask, weight = (part[rank] for part in torch.load(f"{folder}/joined.pt"))
x.requires_grad_()
pre = BatchPreSBN(num_heads=x.shape[1], head_dim=x.shape[3], momentum=0.1).double()
out = pre(x, mask)
(out * weight).sum().backward()
torch.save((out.detach(), x.grad, pre.running_mean, pre.running_var), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_agree_with_one_on_the_joined_batch(tmp_path):
    """Padding differs between the ranks, so that a mean of means would be wrong."""
    x = torch.randn(2, B, H, N, E, dtype=torch.float64) + torch.arange(2)[:, None, None, None, None]
    mask = torch.arange(N) >= torch.tensor([[N, 8], [3, 5]])[..., None]
    weight = torch.randn_like(x)
    torch.save((x, mask, weight), tmp_path / "joined.pt")
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)]) for rank in (0, 1)
    ]
    assert [rank.wait(timeout=100) for rank in ranks] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]

    pre, joined = pre_sbn(batch_pre_sbn).double(), x.flatten(0, 1).requires_grad_()
    out = pre(joined, mask.flatten(0, 1))
    (out * weight.flatten(0, 1)).sum().backward()
    assert_close(torch.cat([part[0] for part in parts]), out)
    assert_close(torch.cat([part[1] for part in parts]), joined.grad)
    for part in parts:
        assert_close(part[2:], (pre.running_mean, pre.running_var))


def test_post_stage_begins_as_the_identity():
    x = torch.randn(B, H, N, E)
    assert torch.equal(post_sbn()(x), x)


def test_post_stage_scales_and_raises_to_a_power_with_the_sign_kept():
    post = post_sbn().double()
    with torch.no_grad():
        post.gamma.copy_(torch.tensor([2.0, 3.0, 5.0])[:, None, None])
        post.beta.copy_(torch.tensor([0.5, 1.0, 2.0])[:, None, None])
    x = torch.tensor([-4.0, -1.0, 0.0, 0.25, 9.0, 1.0, 2.0]).double().expand(1, H, 1, E)
    roots = [2 * v for v in (-2.0, -1.0, 0.0, 0.5, 3.0, 1.0, 2**0.5)]
    same = [3 * v for v in (-4.0, -1.0, 0.0, 0.25, 9.0, 1.0, 2.0)]
    squares = [5 * v for v in (-16.0, -1.0, 0.0, 0.0625, 81.0, 1.0, 4.0)]
    expected = torch.tensor([roots, same, squares]).double()
    assert_close(post(x)[0, :, 0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_post_stage_has_finite_gradients_at_zero_and_below(power):
    """A bare power has none: NaN below zero, infinite at zero."""
    post, x = post_sbn(), torch.tensor([-1.0, 0.0, 1.0]).repeat(B, H, N, 1).requires_grad_()
    nn.init.constant_(post.beta, power)
    post(x).square().sum().backward()
    for tensor in (x, post.gamma, post.beta):
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize(
    ("switches", "names"),
    [
        ({"gamma": True, "beta": True}, ["gamma", "beta"]),
        ({"gamma": True, "beta": False}, ["gamma"]),
        ({"gamma": False, "beta": True}, ["beta"]),
        ({"gamma": False, "beta": False}, []),
    ],
)
def test_post_stage_is_switchable(switches, names):
    post = post_sbn(**switches)
    assert [name for name, _ in post.named_parameters()] == names
    x = torch.randn(B, H, N, E)
    assert torch.equal(post(x), x)


def test_the_attention_inside_sees_the_unit_sphere_and_untouched_values():
    seen = {}

    class Spy(nn.Module):
        def __init__(self, *, num_heads, head_dim):
            super().__init__()

        def forward(self, query, key, value, *, key_padding_mask=None):
            seen.update(query=query, key=key, value=value, mask=key_padding_mask)
            return value

    query, key, value = (5 + torch.randn(B, H, N, E) for _ in range(3))
    mask = torch.zeros(B, N, dtype=torch.bool)
    out = ppsbn(attention=Spy)(query, key, value, key_padding_mask=mask)
    for x, name in ((query, "query"), (key, "key")):
        centred = x - x.mean(-1, keepdim=True)
        assert_close(seen[name], centred / centred.norm(dim=-1, keepdim=True))
    assert seen["value"] is value and seen["mask"] is mask and out is value


def test_declarations_are_those_of_the_attention_inside():
    class Child(nn.Module):
        positional = joint_queries = True

        def __init__(self, *, num_heads, head_dim):
            super().__init__()

    class Silent(nn.Identity):
        def __init__(self, *, num_heads, head_dim):
            super().__init__()

    assert ppsbn(attention=Child).positional and not ppsbn(attention=Silent).positional
    assert ppsbn(attention=Child).joint_queries and not ppsbn(attention=Silent).joint_queries
