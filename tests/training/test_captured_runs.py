"""Whole runs whose steps are graphs, beside those of eager steps."""

import csv
from functools import partial
from itertools import pairwise

import jaxtyping
import pytest
import torch

from macformer.runs import cell
from macformer.training import capture

TRIMMED = (
    "attention=rmfa_exp",
    "ppsbn=with",
    "batch_size=2",
    "max_steps=24",
    "task.trim_batches=true",
    "task.bucket_by_length=true",
)


def weights_after(make_run, *options, folder):
    _, run_dir = make_run(*options, folder=folder)
    assert cell.run(run_dir)
    path = run_dir / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def read_losses(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_a_captured_run_ends_with_the_bits_of_an_eager_one(make_run, graphs):
    """Validations take gradients away, dropout and the pool of features go on."""
    options = ("attention=rfa", "ppsbn=with", "step.fused=true", "trainer.precision=32-true")
    eager = weights_after(make_run, *options, folder="eager")
    assert graphs.num_recordings == 0
    captured = weights_after(make_run, *options, "trainer=captured", folder="captured")
    assert graphs.num_recordings == 1
    for name, value in eager.items():
        assert torch.equal(captured[name], value), name


def test_a_graph_for_each_width_ends_with_the_bits_of_an_eager_run(make_run, graphs):
    options = (*TRIMMED, "trainer.precision=32-true", "data.pad_to_multiple_of=16")
    eager = weights_after(make_run, *options, folder="eager")
    captured = weights_after(make_run, *options, "trainer=captured", folder="captured")
    assert graphs.num_recordings > 1
    for name, value in eager.items():
        assert torch.equal(captured[name], value), name


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_captured_as_shipped_trains_as_eager_steps_in_bf16(make_run, graphs, accumulate):
    """Nothing but trainer=captured, several steps to a call."""
    options = ("attention=rmfa_exp", "ppsbn=with", "batch_size=4", f"accumulate={accumulate}")
    eager = ("trainer.precision=bf16-mixed",)
    losses = {}
    for name, chosen in (("eager", eager), ("captured", ("trainer=captured",))):
        cfg, run_dir = make_run(*options, *chosen, folder=name)
        assert cell.run(run_dir)
        losses[name] = read_losses(run_dir)
    assert graphs.num_recordings == 1
    assert cfg.step.steps_per_call == cfg.log_interval > 1 and cfg.task.device_resident
    assert losses["captured"] == losses["eager"] and len(losses["eager"]) == 4


@pytest.fixture
def programs(graphs, monkeypatch):
    """Compile by tracing alone; write down what is compiled, run beside and recorded, in turn."""
    events: list[str] = []

    def keep(graph, inputs):
        events.append("compile")
        return graph.forward

    def run_beside(function, stream):
        events.append("run beside")
        return function()

    record = capture.record

    def record_alone(function, device):
        events.append("record")
        outputs = record(function, device)
        events.append("recorded")
        return outputs

    compile = partial(torch.compile, backend=keep)
    monkeypatch.setattr(
        torch, "compile", lambda f, *, fullgraph, options: compile(f, fullgraph=fullgraph)
    )
    monkeypatch.setattr(capture, "run_beside", run_beside)
    monkeypatch.setattr(capture, "record", record_alone)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    torch.compiler.reset()
    return events


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # the compiler's own
def test_a_compiled_step_is_compiled_before_it_is_recorded_and_once_for_most_widths(
    make_run, graphs, programs
):
    """The first width has a program of its own, any other the second one, which takes all."""
    options = (*TRIMMED, "data.pad_to_multiple_of=8", "trainer=captured")
    captured = weights_after(make_run, *options, folder="captured")
    steps = programs.copy()
    num_widths = graphs.num_recordings
    assert num_widths > 2 and "compile" not in steps
    programs.clear()
    compiled = weights_after(make_run, *options, "step=compiled", folder="compiled")
    assert graphs.num_recordings == 2 * num_widths
    assert [event for event in programs if event != "compile"] == steps
    assert programs[:2] == ["run beside", "compile"] and programs.count("compile") == 2
    for event, following in pairwise(programs):
        assert event != "record" or following == "recorded"  # and nothing is compiled meanwhile
    for name, value in captured.items():
        assert torch.equal(compiled[name], value), name


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["softmax", "rfa", "rmfa_exp"])
def test_the_loss_curve_is_that_of_eager_steps(make_run, attention):
    options = (
        f"attention={attention}",
        "ppsbn=with",
        "model.encoder.dropout=0.0",
        "max_steps=24",
        "task.device_resident=true",
        "log_interval=1",
    )
    if attention == "rfa":
        options += ("attention.redraw=false",)
    losses = {}
    for trainer in ("default", "captured"):
        _, run_dir = make_run(
            *options, f"trainer={trainer}", "trainer.precision=32-true", folder=trainer
        )
        assert cell.run(run_dir)
        losses[trainer] = read_losses(run_dir)
    assert len(losses["default"]) == 24
    # atomic sums of embedding gradients come in any order, and 24 steps amplify that
    assert losses["captured"] == pytest.approx(losses["default"], rel=1e-3)
