"""What a run says of the cost of its model, which is what it was before."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from macformer.runs import cell, model_cost
from macformer.runs.build import build_run
from macformer.runs.config import compose
from macformer.runs.model_cost import measure_cost
from macformer.training import CapturedGradients

N, D = 24, 64


def test_a_run_counts_operations_and_state_of_a_full_example(make_run):
    """Two layers of projections, attention and feed-forward network, and the head."""
    cfg, run_dir = make_run("attention=softmax")
    assert cell.run(run_dir)
    found = json.loads((run_dir / "metrics.json").read_text())["cost"]
    layer = 2 * N * D * (3 * D) + 4 * N * N * D + 2 * N * D * D + 2 * (2 * N * D * 128)
    assert cfg.padded_len == N
    assert found["flops"] == 2 * layer + 2 * (D * 128 + 128 * 10)
    assert found["state_size"] == 2 * N * 2 * D
    assert found["num_latency_examples"] == 3
    assert 0 < found["latency_p50_ms"] <= found["latency_p95_ms"]
    assert 0 < found["latency_mean_ms"] <= found["latency_p95_ms"]


@pytest.fixture
def built_run(make_run):
    """Build a run whose model has buffers that move in training."""
    options = ("attention=rfa", "ppsbn=with_batch", "max_steps=40", "cost.trimmed_passes=1")
    cfg, _ = make_run(*options)
    built = build_run(cfg)
    built.data.setup()
    return built, cfg


def test_trimmed_training_is_timed_and_leaves_no_trace(built_run):
    built, cfg = built_run
    before = {name: value.clone() for name, value in built.module.model.state_dict().items()}
    rates = measure_cost(built, cfg)["trimmed"]
    assert rates["examples"] == 2 * cfg.batch_size  # a tenth of 40 steps: two passes over two
    assert rates["tokens"] <= rates["positions"] < N * rates["examples"]
    assert rates["examples_per_second"] == pytest.approx(rates["examples"] / rates["seconds"])
    after = built.module.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not built.module.model.training
    assert all(p.grad is None for p in built.module.model.parameters())


def test_answers_are_timed_on_test_rows_without_needless_padding(built_run):
    built, cfg = built_run
    rates = measure_cost(built, cfg)["served"]
    assert rates["examples"] == 2 * cfg.batch_size
    shortest_and_longest = built.data.trimmed_batches(2, split="test")
    assert rates["positions"] == sum(b["inputs"].numel() for b in shortest_and_longest)
    assert rates["positions"] < N * rates["examples"]
    assert rates["examples_per_second"] == pytest.approx(rates["examples"] / rates["seconds"])


def test_trimmed_training_is_left_out_where_it_would_mean_nothing(built_run):
    """In a short run, where pooling counts padding, in a step of one shape, without padding."""
    built, cfg = built_run
    short = OmegaConf.merge(cfg, {"cost": {"trimmed_passes": 5}})
    pooling, module, data = built.module.model.pooling, built.module, built.data
    cases = [
        (short, pooling, "counts_padding", False, False),
        (cfg, pooling, "counts_padding", True, False),
        (
            cfg,
            type(module),
            "takes_any_shape",
            lambda self, device: False,
            True,
        ),  # answers need no captured step
        (cfg, type(data), "trimmed_batches", lambda self, number, split: None, False),
    ]
    for options, owner, name, value, is_served in cases:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, value, raising=False)
            found = measure_cost(built, options)
        assert found["trimmed"] == {} and found["cost"]["flops"] > 0, name
        assert bool(found["served"]) == is_served, name


def test_a_run_may_leave_its_cost_out_and_stays_the_same_run(built_run):
    built, cfg = built_run
    same, without = (compose("task=listops_short", option) for option in ("seed=0", "cost=null"))
    assert same.identity == without.identity
    cfg.cost = without.cost
    assert cfg.cost is None and measure_cost(built, cfg) == {}


def test_a_captured_step_knows_one_shape(built_run, monkeypatch):
    built, _ = built_run
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert built.module.takes_any_shape(cuda)
    monkeypatch.setattr(built.module, "_make_gradients", CapturedGradients)
    assert built.module.takes_any_shape(cpu)  # without graphs it captures nothing
    assert not built.module.takes_any_shape(cuda)  # wherever the module is by now


def test_what_cannot_be_measured_costs_no_run_its_results(built_run, monkeypatch, caplog):
    built, cfg = built_run

    def fail(seq_len):
        raise RuntimeError("no state\nat all")

    monkeypatch.setattr(built.module.model.encoder, "state_size", fail)
    with caplog.at_level(logging.WARNING):
        found = measure_cost(built, cfg)
    assert "the cost was not measured (state size): no state" in caplog.text
    assert "state_size" not in found["cost"] and found["cost"]["flops"] > 0 and found["served"]


def test_latency_is_that_of_single_examples_after_a_warm_up(built_run, monkeypatch):
    """Of three examples of 1, 2 and 4 s the middle one counts; the first pass would be slower."""
    built, _ = built_run
    seconds = iter([0.0, 9.0, 18.0, 27.0, 30.0, 31.0, 33.0, 37.0])
    monkeypatch.setattr(model_cost, "now", lambda device: next(seconds))
    examples = SimpleNamespace(single_examples=built.data.single_examples)
    monkeypatch.setattr(built, "data", examples)
    found = model_cost._time_examples(built, torch.device("cpu"), number=3)
    assert found["latency_p50_ms"] == 2000 and found["num_latency_examples"] == 3
    assert found["latency_p95_ms"] == pytest.approx(3800)  # between 2 and 4 s
    assert found["latency_mean_ms"] == pytest.approx(7000 / 3)
