"""The benchmark of the step: two loops take turns."""

import importlib.util
from pathlib import Path

import pytest
import torch

from macformer.runs.config import compose

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_step.py"


@pytest.fixture
def bench_step():
    spec = importlib.util.spec_from_file_location("bench_step", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = (
    "model.embed_dim=8",
    "model.encoder.ffn_dim=8",
    "max_seq_len=8",
    "batch_size=2",
    "log_interval=3",
)


@pytest.mark.parametrize("task", ["listops_short", "retrieval"])
@pytest.mark.parametrize("full", [False, True])
def test_one_row_has_padding_unless_all_are_full(bench_step, task, full):
    cfg = compose(f"task={task}", "recipe=smoke", *TINY)
    rows = bench_step.draw_rows(cfg, Path(), "train", full=full)
    lengths = rows.lengths(torch.arange(len(rows))).flatten().tolist()
    assert sorted(lengths) == [8 - (not full), *[8] * (len(lengths) - 1)]


@pytest.mark.parametrize("trainer", ["default", "captured"])
def test_each_loop_has_its_own_time(bench_step, monkeypatch, trainer):
    """With a clock that only the steps of the bare loop move, those of Lightning take no time."""
    num_steps = 0
    step = bench_step.optimisation_step

    def step_and_tick(*args):
        nonlocal num_steps
        num_steps += 1
        return step(*args)

    monkeypatch.setattr(bench_step, "optimisation_step", step_and_tick)
    monkeypatch.setattr(bench_step, "now", lambda device, cpu_time: float(num_steps))
    options = ("task=listops_short", "recipe=smoke", f"trainer={trainer}", *TINY)
    turns = bench_step.take_turns(options, rounds=2, full=False)
    assert turns.bare == [1.0, 1.0] and turns.ours == [0.0, 0.0]
    assert num_steps == 3 * (2 + 2)  # and two stretches that warm up
