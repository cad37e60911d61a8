"""What each method computes, by hand or by an independent formula."""

import math
from functools import partial

import pytest
import torch

from macformer.attention import (
    PPSBN,
    RFA,
    RMFA,
    BatchPreSBN,
    KernelizedAttention,
    PostSBN,
    PreSBN,
    SoftmaxAttention,
    UniformAttention,
    kernelized,
    maclaurin,
    samplers,
)
from macformer.ops import fourier_attention

H, E = 2, 8


def rmfa(**changes):
    options = {
        "num_features": 64,
        "coefficients": maclaurin.exp,
        "radius": math.inf,
        "sampler": samplers.optimal,
        "per_head": False,
        "input_norm": 1.0,
        "guard": 0.95,
        "assumed_dot": 4.0,
    }
    return RMFA(num_heads=H, head_dim=E, **(options | changes))


def exact(**changes):
    options = {"kernel": kernelized.exp, "radius": math.inf, "input_norm": 1.0, "guard": 0.95}
    return KernelizedAttention(num_heads=H, head_dim=E, **(options | changes))


def sphere(*shape, seed=0):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=-1, keepdim=True)


def test_uniform_averages_what_is_present():
    value = torch.tensor([[1.0], [3.0], [100.0]]).view(1, 1, 3, 1)
    mask = torch.tensor([[False, False, True]])
    out = UniformAttention(num_heads=1, head_dim=1)(
        torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 3, 1), value, key_padding_mask=mask
    )
    assert out.flatten().tolist() == [2.0, 2.0]


def test_softmax_by_hand():
    query = torch.tensor([2.0]).view(1, 1, 1, 1)
    key = torch.tensor([math.log(3) / 2, 0.0]).view(1, 1, 2, 1)
    value = torch.tensor([4.0, 8.0]).view(1, 1, 2, 1)
    out = SoftmaxAttention(num_heads=1, head_dim=1)(query, key, value)
    assert out.item() == pytest.approx((3 * 4 + 8) / 4)


def test_kernelized_inv_by_hand():
    key = torch.tensor([0.5, 0.0]).view(1, 1, 2, 1)  # K = 1 / (1 - 0.5) and 1
    value = torch.tensor([3.0, 9.0]).view(1, 1, 2, 1)
    attention = KernelizedAttention(
        num_heads=1, head_dim=1, kernel=kernelized.inv, radius=1.0, input_norm=0.5, guard=0.95
    )
    assert attention(torch.ones(1, 1, 1, 1), key, value).item() == pytest.approx((2 * 3 + 9) / 3)


def test_rmfa_converges_to_exact_attention_in_both_directions():
    q, k = sphere(1, H, 9, E, seed=1), sphere(1, H, 9, E, seed=2)
    v = torch.randn(1, H, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    target = exact()(q, k, v)
    errors = []
    for num_features in (64, 4096):
        torch.manual_seed(0)
        out = rmfa(num_features=num_features).double()(q, k, v)
        errors.append((out - target).norm() / target.norm())
    assert errors[1] < 3e-3 and errors[1] < errors[0]


def test_later_keys_reach_earlier_queries():
    torch.manual_seed(0)
    attention = rmfa().double()
    q, k, v = (sphere(1, H, 5, E, seed=s) for s in (1, 2, 3))
    moved = v.clone()
    moved[:, :, -1] += 1
    assert ((attention(q, k, moved) - attention(q, k, v)).abs() > 1e-3).all()


def test_small_kernel_sums_are_not_clamped():
    """One key at K = exp(-1/sqrt(E)) < 1: its value is the output, whatever the weight."""
    torch.manual_seed(0)
    q = sphere(1, H, 1, E)
    v = torch.full((1, H, 1, 2), 7.0, dtype=torch.float64)
    torch.testing.assert_close(rmfa().double()(q, -q, v), v)


def test_heads_share_features_or_have_their_own():
    torch.manual_seed(0)
    assert rmfa(per_head=False).signs.shape[0] == 1
    own = rmfa(per_head=True)
    assert own.signs.shape[0] == H and not torch.equal(own.signs[0], own.signs[1])


def test_features_load_whatever_their_random_shapes():
    for sampler in (samplers.iid, samplers.code, samplers.optimal):
        torch.manual_seed(0)
        saved = rmfa(sampler=sampler)
        torch.manual_seed(1)
        other = rmfa(sampler=sampler)
        other.load_state_dict(saved.state_dict())
        assert other.features.widths == saved.features.widths
        assert torch.equal(other.signs, saved.signs)


def test_guard_is_an_identity_inside_and_clips_outside():
    attention = exact(kernel=kernelized.inv, radius=1.0, input_norm=None)
    rho = math.sqrt(0.95 * math.sqrt(E))
    q, k = sphere(1, H, 4, E, seed=1), sphere(1, H, 4, E, seed=2)
    v = sphere(1, H, 4, 3, seed=3)
    free = exact(kernel=kernelized.inv, radius=1.0, input_norm=None, guard=None)
    torch.testing.assert_close(attention(q, k, v), free(q, k, v))
    assert attention.guard.clipped_share == 0
    long = torch.cat([k[:, :, :1] * 50, k[:, :, 1:]], dim=2)
    at_rho = torch.cat([k[:, :, :1] * rho, k[:, :, 1:]], dim=2)
    torch.testing.assert_close(attention(q, long, v), free(q, at_rho, v))
    assert attention.guard.clipped_share == pytest.approx(1 / 4)


def test_guard_stays_away_where_ppsbn_bounds_the_inputs():
    assert rmfa(coefficients=maclaurin.inv, radius=1.0, input_norm=1.0).guard is None
    assert rmfa(coefficients=maclaurin.inv, radius=1.0, input_norm=None).guard is not None


def rfa(**changes):
    options = {"num_features": 512, "attend": fourier_attention, "pool_size": 5, "redraw": True}
    return RFA(num_heads=H, head_dim=E, **(options | changes))


def test_rfa_approaches_gaussian_attention_of_normalised_inputs():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, H, 7, E) * 3 for _ in range(3))
    unit_q, unit_k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    weights = torch.exp(-torch.cdist(unit_q, unit_k).square() / 2)
    target = weights @ v / weights.sum(-1, keepdim=True)
    out = rfa(num_features=20_000).eval()(q, k, v)
    # a kernel value of 20,000 features has a standard deviation below 1 / sqrt(20,000) = 0.007
    assert (out - target).norm() / target.norm() < 0.03


def test_rfa_redraws_in_training_only():
    torch.manual_seed(0)
    attention, x = rfa(), torch.randn(1, H, 3, E)
    still = attention.eval()(x, x, x)
    assert torch.equal(attention(x, x, x), still)
    attention.train()
    seen = [attention(x, x, x) for _ in range(5)]
    assert torch.equal(seen[4], still)  # the pool of five is walked in a circle
    assert len({out.sum().item() for out in seen}) == 5
    assert attention.pool_index.item() == 0
    frozen = rfa(redraw=False).train()
    assert torch.equal(frozen(x, x, x), frozen(x, x, x))


def test_rfa_resumes_its_walk_and_learns_sigma():
    torch.manual_seed(0)
    walked, other, x = rfa().train(), rfa().train(), torch.randn(1, H, 3, E)
    walked(x, x, x)
    other.load_state_dict(walked.state_dict())
    assert torch.equal(other(x, x, x), walked(x, x, x))
    walked(x, x, x).sum().backward()
    assert walked.sigma.grad is not None and walked.sigma.grad.abs().sum() > 0


def test_pre_stage_is_centring_and_the_unit_sphere():
    x = torch.randn(2, H, 3, E, generator=torch.Generator().manual_seed(0))
    out = PreSBN(num_heads=H, head_dim=E)(x, None)
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(out, centred / centred.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pre", [PreSBN, partial(BatchPreSBN, momentum=0.1)])
def test_constant_vectors_are_finite(dtype, pre):
    x = torch.full((2, H, 3, E), 3.0, dtype=dtype, requires_grad=True)
    out = pre(num_heads=H, head_dim=E)(x, None)
    out.sum().backward()
    assert out.dtype == dtype and out.isfinite().all() and x.grad.isfinite().all()


def test_batch_statistics_leave_padding_out():
    torch.manual_seed(0)
    x = torch.randn(2, H, 5, E)
    mask = torch.tensor([[False] * 5, [False, False, False, True, True]])
    x[1, :, 3:] = 1000.0
    pre = BatchPreSBN(num_heads=H, head_dim=E, momentum=0.1)
    out = pre(x, mask)
    rows = torch.cat([x[0].transpose(0, 1), x[1, :, :3].transpose(0, 1)])  # (8, H, E)
    norm = torch.nn.BatchNorm1d(H * E, affine=False)
    expected = norm(rows.flatten(1)).view(8, H, E)
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(out[0].transpose(0, 1), expected[:5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out[1, :, :3].transpose(0, 1), expected[5:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pre.running_mean[:, 0].flatten(), norm.running_mean)
    alone, together = pre.eval()(x[:1], mask[:1]), pre(x, mask)
    torch.testing.assert_close(alone, together[:1])


def test_batch_statistics_need_self_attention():
    ppsbn = PPSBN(
        num_heads=H,
        head_dim=E,
        attention=SoftmaxAttention,
        pre=partial(BatchPreSBN, momentum=0.1),
        post=None,
    )
    q, k = torch.randn(1, H, 4, E), torch.randn(1, H, 5, E)
    with pytest.raises(ValueError, match="self-attention"):
        ppsbn(q, k, k, key_padding_mask=torch.zeros(1, 5, dtype=torch.bool))


def test_post_stage_begins_as_the_identity_and_keeps_signs():
    post = PostSBN(num_heads=H, head_dim=E, gamma=True, beta=True)
    x = torch.randn(1, H, 4, E, requires_grad=True)
    torch.testing.assert_close(post(x), x)
    with torch.no_grad():
        post.gamma.fill_(3.0)
        post.beta.fill_(0.5)
    expected = 3 * x.sign() * x.abs().sqrt()
    torch.testing.assert_close(post(x), expected, rtol=1e-3, atol=2e-2)
    zero = torch.zeros(1, H, 1, E, requires_grad=True)
    post(zero).sum().backward()
    assert zero.grad.isfinite().all() and post.beta.grad.isfinite().all()


def test_post_stage_can_be_switched_off():
    post = PostSBN(num_heads=H, head_dim=E, gamma=False, beta=False)
    assert list(post.parameters()) == []
    assert [
        n for n, _ in PostSBN(num_heads=H, head_dim=E, gamma=True, beta=False).named_parameters()
    ] == ["gamma"]
