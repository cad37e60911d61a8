"""What errors cost: points, features swapped in a trained model, table and plot."""

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch.testing import assert_close

from macformer.attention import RMFA, KernelizedAttention
from macformer.features.calls import core_attentions, record_attention, transplant
from macformer.runs.config import compose
from macformer.studies import error_cost

RMFA_POINT = {
    "attention": "rmfa_exp",
    "ppsbn": "with",
    "sampler": "optimal",
    "num_features": 512,
    "num_steps": 2,
    "seed": 0,
}


@pytest.fixture(scope="module")
def cfg():
    return compose("study=error_cost", "study.sizes.smoke.num_steps=2", name="study")


def build(cfg, *, seed=0, exact=False, **changes):
    return error_cost._build(RMFA_POINT | changes, cfg, seed=seed, exact=exact)


def batch(cfg):
    ids = torch.randint(1, 9, (2, cfg.study.settings.reverse.seq_len))
    return {"inputs": ids, "key_padding_mask": torch.zeros_like(ids, dtype=torch.bool)}


def test_ends_stand_beside_the_product(cfg):
    points = error_cost.points(cfg)
    assert len(points) == len(cfg.study.settings.ends) + 1
    assert {"attention": "softmax", "ppsbn": "without"}.items() <= points[0].items()
    assert points[-1] == RMFA_POINT | {"num_features": cfg.grid.num_features[0]}


def test_another_budget_is_another_point(cfg):
    longer = OmegaConf.merge(cfg, {"study": {"sizes": {"smoke": {"num_steps": 3}}}})
    points = error_cost.points(cfg), error_cost.points(longer)
    assert all(one != other for one, other in zip(*points, strict=True))


def test_calls_are_what_the_attention_receives_within_ppsbn(cfg):
    model = build(cfg)
    (attention,) = core_attentions(model)
    (call,) = record_attention(model, batch(cfg))
    assert isinstance(attention, RMFA) and call.attention is attention
    assert_close(call.query.norm(dim=-1), torch.ones(call.query.shape[:-1]))
    assert_close(attention(call.query, call.key, call.value), call.out)
    assert not attention._forward_hooks


def test_a_transplant_keeps_features_and_takes_weights(cfg):
    source, target = build(cfg, seed=0), build(cfg, seed=1)
    own = core_attentions(target)[0].get_buffer("signs").clone()
    assert transplant(source, target) is target
    assert torch.equal(core_attentions(target)[0].get_buffer("signs"), own)
    for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    exact = transplant(source, build(cfg, attention="kernelized_exp", sampler=""))
    assert isinstance(core_attentions(exact)[0], KernelizedAttention)


@pytest.mark.parametrize("row", ["rmfa_log", "rmfa_exp_scaled"])
def test_the_exact_twin_has_the_kernel_and_the_bounds_of_the_row(cfg, row):
    estimate, exact = build(cfg, attention=row), build(cfg, attention=row, exact=True)
    (own,), (twin,) = core_attentions(estimate), core_attentions(exact)
    assert isinstance(own, RMFA) and isinstance(twin, KernelizedAttention)
    assert error_cost._describe_kernel(exact) == error_cost._describe_kernel(estimate)
    assert (twin.guard is None) == (own.guard is None) and (twin.scale is None) == (
        own.scale is None
    )


def test_a_scale_goes_with_the_weights(cfg):
    source = build(cfg, attention="rmfa_exp_scaled")
    torch.nn.init.constant_(core_attentions(source)[0].scale.log_scale, 0.25)
    exact = transplant(source, build(cfg, attention="kernelized_exp_scaled", sampler=""))
    assert (core_attentions(exact)[0].scale.log_scale == 0.25).all()


def test_many_features_score_as_the_exact_kernel_does(cfg):
    (row,) = error_cost.measure(RMFA_POINT, cfg)
    assert 0 < row["error"] < 0.1  # some 0.015 at 512 features
    assert row["accuracy_exact"] == pytest.approx(row["accuracy"], abs=0.01)
    assert row["accuracy_redrawn"] == pytest.approx(row["accuracy"], abs=0.01)


def test_table_and_plot_come_from_rows_alone():
    end = {"sampler": float("nan"), "num_features": 0, "diverged": False}
    ends = {"uniform": (None, 0.25), "my_oracle": ("exp", 0.75), "another": ("exp, scaled", 0.9)}
    rows = [
        {"attention": name, "ppsbn": "with", "kernel": kernel, "accuracy": value, "seed": 0, **end}
        for name, (kernel, value) in ends.items()
    ]
    scores = {"accuracy_redrawn": 0.25, "accuracy_exact": 0.5, "error": 0.1, "diverged": False}
    rows += [
        RMFA_POINT | {"kernel": "exp"} | scores | {"seed": seed, "accuracy": accuracy}
        for seed, accuracy in enumerate((0.5, 0.7))
    ]
    frame = pd.DataFrame(rows)
    table = error_cost.table(frame)
    assert table["accuracy % with its own features"].tolist() == ["25", "75", "90", "60 ± 14"]
    assert table["features"].tolist() == ["", "", "", 512]
    (axis,) = error_cost.plot(frame).axes
    assert axis.get_title(loc="left") == "rmfa_exp"
    assert list(axis.lines[0].get_ydata()) == [50, 70]
    levels = {
        str(line.get_label()): line.get_ydata()[0]
        for line in axis.lines
        if "with" in str(line.get_label())
    }
    assert levels == {"trained with uniform": 25, "trained with exact kernel": 75}
