"""Random Maclaurin feature attention, and the guard that keeps its kernels convergent."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.attention import (
    RMFA,
    InputScale,
    Kernel,
    KernelizedAttention,
    kernels,
    samplers,
)
from macformer.attention.maclaurin import rmfa as rmfa_module
from macformer.ops import maclaurin_attention

H, L, S, E, EV = 3, 11, 13, 7, 5
KERNELS = ("exp", "inv", "log", "trigh", "sqrt")
GUARD = 0.5
RHO = math.sqrt(GUARD * math.sqrt(E))  # the norm at which |q.k| / sqrt(E) can reach the guard


def rmfa(kernel: str | Kernel = "exp", **changes) -> RMFA:
    options = {
        "num_features": 64,
        "kernel": getattr(kernels, kernel)() if isinstance(kernel, str) else kernel,
        "sampler": samplers.optimal,
        "per_head": False,
        "input_norm": 1.0,
        "guard": GUARD,
        "assumed_dot": 0.7,
        "scale": None,
    }
    return RMFA(**({"num_heads": H, "head_dim": E} | options | changes)).double()


def exact(kernel: str | Kernel = "exp", **changes) -> KernelizedAttention:
    options = {"input_norm": 1.0, "guard": GUARD, "scale": None}
    function = getattr(kernels, kernel)() if isinstance(kernel, str) else kernel
    options |= {"num_heads": H, "head_dim": E, "kernel": function}
    return KernelizedAttention(**(options | changes))


def draw_inputs(norm=1.0):
    q, k, v = (torch.randn(2, H, *s, dtype=torch.float64) for s in ((L, E), (S, E), (S, EV)))
    return norm * q / q.norm(dim=-1, keepdim=True), norm * k / k.norm(dim=-1, keepdim=True), v


@pytest.mark.parametrize("kernel", KERNELS)
def test_error_falls_with_the_number_of_features(kernel):
    """Measured against what the attention adds to the mean of the values."""
    inputs = draw_inputs()
    target = exact(kernel)(*inputs)
    signal = (target - inputs[2].mean(2, keepdim=True)).norm()
    mean_errors = []
    for num_features in (64, 1024):
        outs = [rmfa(kernel, num_features=num_features)(*inputs) for _ in range(8)]
        errors = [(out - target).square().sum() for out in outs]
        mean_errors.append((sum(errors) / 8).sqrt() / signal)
    few, many = mean_errors
    assert many < few / 3  # 16 times the features: a quarter, and more for orthogonal rows
    assert many < 0.1


def test_mask_and_features_as_in_exact_attention():
    inputs = draw_inputs()
    mask = torch.arange(S) >= torch.tensor([[S - 4], [S]])
    attention = rmfa(num_features=4096)
    target = exact()(*inputs, key_padding_mask=mask)
    error = (attention(*inputs, key_padding_mask=mask) - target).norm() / target.norm()
    wrong = (exact()(*inputs) - target).norm() / target.norm()
    assert error < 0.01 < wrong


def test_every_key_reaches_every_query():
    """Causal sums would leave the earlier outputs where they were."""
    query, key, value = draw_inputs()
    attention, moved = rmfa(), value.clone()
    moved[:, :, -1] += 1
    assert ((attention(query, key, moved) - attention(query, key, value)).abs() > 0.01).all()


@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_weights_that_add_up_to_less_than_one_are_not_clamped(weight):
    """With one key the output is its value, however small its weight."""
    query, _, value = (x[:, :, :1] for x in draw_inputs())
    exp = kernels.exp()
    attention = rmfa(kernel=exp._replace(coefficients=lambda n: weight * exp.coefficients(n)))
    assert_close(attention(query, -query, value), value)


def test_heads_share_features_or_have_their_own():
    assert len(rmfa(per_head=False).signs) == 1
    own = rmfa(per_head=True)
    assert len(own.signs) == H and not torch.equal(own.signs[0], own.signs[1])
    query, key, value = (x[:, :1].expand(-1, H, -1, -1) for x in draw_inputs())
    first, second, _ = own(query, key, value).unbind(1)
    assert (first - second).abs().max() > 1e-6
    assert_close(*rmfa(per_head=False)(query, key, value)[:, :2].unbind(1))


@pytest.mark.parametrize("sampler", [samplers.iid, samplers.code, samplers.optimal])
def test_a_checkpoint_brings_its_features_whatever_their_shapes(sampler):
    inputs = draw_inputs()
    options = {"kernel": "inv", "sampler": sampler, "num_features": 16, "input_norm": 1.3}
    saved = nn.Sequential(rmfa(**options))
    out = saved[0](*inputs)
    shapes = set()
    for seed in range(8):
        torch.manual_seed(seed)
        other = nn.Sequential(rmfa(**options))
        shapes.add(other[0].features.widths)
        other.load_state_dict(saved.state_dict())
        assert torch.equal(other[0](*inputs), out)
        assert other[0].features.widths == saved[0].features.widths
    assert len(shapes) > 1  # loading did change shapes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_features": 48}, "num_features: 64 in the checkpoint, 48 here"),
        # too few for an exact degree 1
        ({"num_features": 16}, "num_features: 64 .*, 16 here; weight of the exact degree 1: .*"),
        ({"sampler": samplers.code}, "weight of the exact degree 1: .*, 0 here$"),
        ({"kernel": "sqrt"}, "weight of the exact degree 1: .*; kernel, by its coefficients"),
        ({"kernel": "inv"}, "kernel, by its .*: 1, 1, 0.5, .*, 1, 1, 1, 1, 1, 1, 1, 1 here$"),
        ({"kernel": "log"}, "kernel, by its coefficients from degree 0 on: "),
        ({"input_norm": 0.5}, "dot bound: 0.377964 in the checkpoint, 0.0944911 here$"),
        ({"input_norm": None, "guard": 4.0}, "dot bound: 0.377964 in the checkpoint, 4 here$"),
    ],
    ids=["more", "fewer", "sampler", "sqrt", "inv", "log", "smaller bound", "larger bound"],
)
def test_a_checkpoint_of_features_for_something_else_is_refused(changes, message):
    """Whose shapes may agree: what is not in the features themselves comes from the model."""
    other = nn.Sequential(rmfa(**changes))
    with pytest.raises(RuntimeError, match=rf"0\.design: {message}"):
        other.load_state_dict(nn.Sequential(rmfa()).state_dict())


def test_kernels_of_one_series_take_each_others_checkpoints():
    inputs = draw_inputs()
    saved, other = rmfa("exp"), rmfa("trigh")
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other(*inputs), saved(*inputs))


def test_a_checkpoint_without_the_kernel_is_asked_for_the_rest():
    """As it was written before: the number of features and the weight of degree 1 alone."""
    inputs = draw_inputs()
    saved = rmfa("exp")
    state = saved.state_dict()
    state["design"] = state["design"][:2]
    for changes in ({}, {"kernel": "inv"}):
        other = rmfa(**changes)
        design = other.design.clone()
        other.load_state_dict(state)
        assert torch.equal(other(*inputs), saved(*inputs))
        assert torch.equal(other.design, design)
    with pytest.raises(RuntimeError, match=r"design: num_features: 64 .*, 48 here$"):
        rmfa(num_features=48).load_state_dict(state)


def test_no_precision_of_a_module_makes_its_features_another_ones():
    """The weight of degree 1, 1 / sqrt(7), and 1023 features are no numbers of bfloat16."""
    saved, other = rmfa(num_features=1023).bfloat16(), rmfa(num_features=1023)
    assert saved.linear
    other.load_state_dict(saved.state_dict())
    assert_close(other.signs, saved.signs.double())


def test_a_checkpoint_that_does_not_say_what_its_features_are_for_is_taken_as_it_is():
    inputs = draw_inputs()
    saved, other = rmfa(), rmfa()
    state = saved.state_dict()
    del state["design"]
    other.load_state_dict(state)
    assert torch.equal(other(*inputs), saved(*inputs))
    assert "design" not in state


def test_features_move_with_the_module():
    attention = rmfa().to("meta")
    assert {x.device.type for x in attention.buffers()} == {"meta"}
    assert all(not isinstance(x, torch.Tensor) for x in vars(attention).values())


def test_what_the_op_receives_follows_every_conversion():
    """Passing through float32 and back leaves no rounding of the exact part's weight."""
    inputs = draw_inputs()
    attention = rmfa(num_features=64).float().double()
    expected = maclaurin_attention(*inputs, attention.features)
    assert attention.features.linear
    assert torch.equal(attention(*inputs), expected)


def test_features_are_laid_out_once(monkeypatch):
    attention, inputs = rmfa(num_features=64), draw_inputs()
    monkeypatch.setattr(rmfa_module, "lay_out", lambda _: pytest.fail("laid out again"))
    attention(*inputs)


def test_a_missing_buffer_is_an_error():
    state = rmfa().state_dict()
    del state["signs"]
    with pytest.raises(RuntimeError, match="signs"):
        rmfa().load_state_dict(state)


@pytest.mark.parametrize("build", [rmfa, exact])
@pytest.mark.parametrize("kernel", KERNELS)
def test_guard_is_the_identity_inside_its_ball_and_clips_outside(build, kernel):
    query, key, value = draw_inputs(norm=0.999 * RHO)
    torch.manual_seed(1)
    guarded = build(kernel, input_norm=None)
    torch.manual_seed(1)
    design = {"assumed_dot": GUARD} if build is rmfa else {}
    free = build(kernel, input_norm=None, guard=None, **design)
    assert guarded.guard is not None and free.guard is None
    assert_close(guarded(query, key, value), free(query, key, value))
    assert guarded.guard.clipped_share == 0
    query[:, :, 2], key[:, :, 3] = 50 * query[:, :, 2], 1.5 * key[:, :, 3]
    out = guarded(query, key, value)
    query[:, :, 2] *= RHO / query[:, :, 2].norm(dim=-1, keepdim=True)
    key[:, :, 3] *= RHO / key[:, :, 3].norm(dim=-1, keepdim=True)
    assert_close(out, free(query, key, value))
    assert guarded.guard.diagnostics()["clipped_share"].item() == pytest.approx(1 / S)


def test_guard_leaves_padding_out_of_the_share():
    query, key, value = draw_inputs(norm=0.5)
    key[0, :, :6] *= 100
    mask = torch.zeros(2, S, dtype=torch.bool)
    mask[0, :4] = True  # 2 of the remaining 2 S - 4 keys are long
    guarded = exact("inv", input_norm=None)
    guarded(query, key, value, key_padding_mask=mask)
    assert guarded.guard.clipped_share.item() == pytest.approx(2 / (2 * S - 4))
    guarded(query, key, value, key_padding_mask=torch.ones(2, S, dtype=torch.bool))
    assert guarded.guard.clipped_share == 0


def test_gradients_pass_through_the_guard():
    guarded = exact("inv", input_norm=None)
    inputs = [x.requires_grad_() for x in draw_inputs(norm=3 * RHO)]
    out = guarded(*inputs)
    query, key, _ = torch.autograd.grad(out.square().sum(), inputs)
    assert query.isfinite().all() and key.isfinite().all() and key.abs().max() > 0
    radial = (key * inputs[1]).sum(-1)
    assert_close(radial, torch.zeros_like(radial), rtol=0, atol=1e-9)  # the norm is fixed


@pytest.mark.parametrize(
    ("input_norm", "guard", "scale", "expected"),
    [
        (1.0, 0.5, None, False),  # ppSBN bounds |t| by 1 / sqrt(7) = 0.38
        (1.0, 0.3, None, True),
        (None, 0.5, None, True),
        (None, None, None, False),
        (1.0, 0.5, InputScale, True),  # a scale is no bound
    ],
)
def test_guard_stands_where_nothing_else_bounds_the_inputs(input_norm, guard, scale, expected):
    if scale is not None:
        scale = partial(scale, unit_dot=1.0)
    for build in (exact, rmfa):
        attention = build(input_norm=input_norm, guard=guard, scale=scale)
        assert (attention.guard is not None) == expected


def test_shipped_kernels_stay_finite_far_outside_the_radius():
    query, key, value = (x.float() for x in draw_inputs(norm=100.0))
    for kernel in KERNELS:
        assert rmfa(kernel, input_norm=None).float()(query, key, value).isfinite().all()
        assert exact(kernel, input_norm=None)(query, key, value).isfinite().all()


@pytest.mark.parametrize("changes", [{"guard": 1.0}, {"guard": None, "assumed_dot": 4.0}], ids=str)
@pytest.mark.parametrize("kernel", ["inv", "log", "sqrt"])
def test_a_bound_outside_the_radius_is_refused(kernel, changes):
    value = changes.get("assumed_dot", 1)
    with pytest.raises(ValueError, match=f"kernel {kernel} has the radius 1, .* by {value:.3g};"):
        rmfa(kernel, input_norm=None, **changes)


def test_the_radius_is_the_kernels_own_word():
    """A series that ends converges everywhere; its kernel may be meant for a smaller ball."""
    mine = Kernel("mine", lambda n: float(n < 3), None, radius=0.25)
    for build in (exact, rmfa):
        assert build(mine, input_norm=None, guard=0.2).guard is not None
        with pytest.raises(ValueError, match=r"kernel mine has the radius 0.25, .* by 0.3;"):
            build(mine, input_norm=None, guard=0.3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_ppsbn_no_kernel_is_noisier_than_uniform_attention(kernel):
    """On independent normal queries and keys, all clipped, at the shipped 128 features of width 32.

    Error over what attention adds to the mean of the values: below 0.6 in 12 draws when the guard
    was chosen; 6 for inv with a guard of 0.95, 160 for exp with none.
    """
    inputs = [torch.randn(1, 1, 256, 32, dtype=torch.float64) for _ in range(3)]
    options = {"input_norm": None, "num_features": 128, "head_dim": 32}
    target = exact(kernel, input_norm=None, head_dim=32)(*inputs)
    signal = (target - inputs[2].mean(2, keepdim=True)).norm()
    for _ in range(3):
        assert (rmfa(kernel, **options)(*inputs) - target).norm() < 0.9 * signal


@pytest.mark.parametrize("build", [rmfa, exact])
def test_a_scale_acts_as_scaled_inputs_do(build):
    """One head's scale halved: its outputs are those of halved queries and keys."""
    scale = partial(InputScale, unit_dot=0.3)
    inputs = draw_inputs()
    torch.manual_seed(1)
    scaled = build(scale=scale).double()
    torch.manual_seed(1)
    plain = build(input_norm=None)
    factor = torch.full((H, 1, 1), math.sqrt(0.3 * math.sqrt(E)), dtype=torch.float64)
    factor[1] /= 2
    with torch.no_grad():
        scaled.scale.log_scale[1] -= math.log(2)
    query, key, value = inputs
    assert_close(scaled(*inputs), plain(factor * query, factor * key, value), rtol=1e-6, atol=1e-6)


def test_a_scale_lifts_near_uniform_attention():
    """From t within 0.38 to cosines: exact attention moves further away from the mean."""
    inputs = draw_inputs()
    mean = inputs[2].mean(2, keepdim=True)
    scaled = exact(scale=partial(InputScale, unit_dot=1.0), guard=2.0)
    assert (scaled(*inputs) - mean).norm() > 2 * (exact()(*inputs) - mean).norm()


def test_num_features_must_be_positive():
    with pytest.raises(ValueError, match="num_features is 0"):
        rmfa(num_features=0)
