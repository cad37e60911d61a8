"""Gradients from a graph over fixed buffers.

Without a GPU a stand-in takes the graph's place: it knows the buffers, the outputs and the
gradients by address, as a graph does, and leaves nothing else behind.
"""

import csv
import math
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import jaxtyping
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.runs import cell
from macformer.training import capture
from macformer.training.capture import CapturedGradients, CaptureError
from macformer.training.objectives import classify
from macformer.training.step import Gradients

CLIP = partial(nn.utils.clip_grad_value_, clip_value=1.0)
PLAIN = {"objective": classify, "accumulate": 1, "clip": None, "compile": None}


class Scale(nn.Module):
    """Two classes, from one number per row, times a buffer; one parameter takes no part."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.unused = nn.Parameter(torch.zeros(()))
        self.register_buffer("factor", torch.ones(()))

    def forward(self, inputs, key_padding_mask):
        return self.layer(self.factor * inputs.float())


def make_batch(*numbers: int, labels: tuple[int, ...]):
    ids = torch.tensor(numbers)[:, None]
    mask = torch.zeros_like(ids, dtype=torch.bool)
    return {"inputs": ids, "key_padding_mask": mask, "labels": torch.tensor(labels)}


BATCHES = [
    make_batch(1, 2, 3, labels=(0, 1, 1)),
    make_batch(3, -1, 2, labels=(1, 0, 1)),
    make_batch(0, 5, -2, labels=(0, 0, 1)),
]


class StandInGraph:
    """Records by tracing where results go, and replays by computing them there."""

    num_recordings = 0

    def __init__(self, model: nn.Module):
        self.model = model

    def record(self, function):
        StandInGraph.num_recordings += 1
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        with torch.random.fork_rng():
            outputs = function()
        for name, value in self.model.state_dict().items():
            value.copy_(state[name])
        grads = [p.grad for p in self.model.parameters()]
        for fixed in (*outputs, *grads):
            if fixed is not None:
                fixed.zero_()

        def replay():
            new_outputs = function()
            new = (*new_outputs, *(p.grad for p in self.model.parameters()))
            for fixed, value in zip((*outputs, *grads), new, strict=True):
                if fixed is not None:
                    fixed.copy_(value)
            self.model.zero_grad(set_to_none=True)

        return replay, outputs


@pytest.fixture
def graphs(monkeypatch):
    """Let CPUs have graphs; the stand-in finds the model in what it is to record."""
    StandInGraph.num_recordings = 0
    monkeypatch.setattr(capture, "can_capture", lambda device: True)
    monkeypatch.setattr(capture, "run_beside", lambda function, stream: function())
    monkeypatch.setattr(capture, "side_stream", lambda device: None)
    monkeypatch.setattr(capture, "record", lambda f, device: StandInGraph(f.func.model).record(f))
    return StandInGraph


def compute(gradients, batches):
    results = []
    for batch in batches:
        loss, num_correct, _ = gradients(batch)
        grads = [None if p.grad is None else p.grad.clone() for p in gradients_of(gradients)]
        results.append((loss, num_correct, grads))
    return results


def gradients_of(gradients):
    model = gradients.model if isinstance(gradients, Gradients) else gradients._gradients.model
    return list(model.parameters())


def test_replays_follow_the_batches(graphs):
    model = Scale()
    batches = BATCHES * 3  # three warm up, six are replayed
    captured = compute(CapturedGradients(model, **PLAIN | {"clip": CLIP}), batches)
    eager = compute(Gradients(model, **PLAIN | {"clip": CLIP}), batches)
    assert_close(captured, eager, rtol=0, atol=0)
    assert graphs.num_recordings == 1


def test_a_replaced_tensor_is_recorded_anew(graphs):
    model = Scale()
    captured = CapturedGradients(model, **PLAIN)
    compute(captured, [*BATCHES, *BATCHES])
    model.factor = torch.tensor(2.0)
    (loss, *_), *_ = compute(captured, BATCHES)
    assert graphs.num_recordings == 2
    assert_close(
        loss,
        compute(Gradients(model, **PLAIN), BATCHES)[0][0],
    )


def test_what_is_written_in_place_is_replayed(graphs):
    model = Scale()
    captured = CapturedGradients(model, **PLAIN)
    compute(captured, [*BATCHES, *BATCHES])
    model.factor.fill_(2.0)
    (loss, *_), *_ = compute(captured, BATCHES)
    assert graphs.num_recordings == 1
    assert_close(
        loss,
        compute(Gradients(model, **PLAIN), BATCHES)[0][0],
    )


def test_each_shape_has_a_graph_of_its_own(graphs):
    model = Scale()
    narrow = [make_batch(4, 1, labels=(0, 1)), make_batch(2, -3, labels=(1, 1))]
    batches = [batch for pair in zip(BATCHES * 3, (narrow * 5)[:9], strict=True) for batch in pair]
    captured = compute(CapturedGradients(model, **PLAIN), batches)
    eager = compute(Gradients(model, **PLAIN), batches)
    assert_close(captured, eager, rtol=0, atol=0)
    assert graphs.num_recordings == 2


def test_batches_with_a_mask_and_without_have_graphs_of_their_own(graphs):
    bare = [{name: batch[name] for name in ("inputs", "labels")} for batch in BATCHES]
    batches = [batch for pair in zip(BATCHES * 2, bare * 2, strict=True) for batch in pair]
    model = Scale()
    captured = compute(CapturedGradients(model, **PLAIN), batches)
    assert_close(captured, compute(Gradients(model, **PLAIN), batches), rtol=0, atol=0)
    assert graphs.num_recordings == 2


def test_a_replaced_tensor_makes_every_graph_anew(graphs):
    model = Scale()
    captured = CapturedGradients(model, **PLAIN)
    narrow = make_batch(4, 1, labels=(0, 1))
    batches = [*BATCHES, BATCHES[0], *[narrow] * 4]
    compute(captured, batches)
    model.factor = torch.tensor(2.0)
    again = compute(captured, [BATCHES[0], narrow])
    assert graphs.num_recordings == 4
    assert_close(again, compute(Gradients(model, **PLAIN), [BATCHES[0], narrow]), rtol=0, atol=0)


def test_too_many_shapes_are_refused(graphs):
    captured = CapturedGradients(Scale(), **PLAIN)
    with pytest.raises(ValueError, match=r"more than 32 shapes.*larger task.pad_to_multiple_of"):
        for size in range(1, 40):
            captured(make_batch(*range(size), labels=(0,) * size))


def test_several_ranks_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="one rank, not on 2"):
        CapturedGradients(Scale(), **PLAIN)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("operation not permitted when stream is capturing"), CaptureError),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
    ],
)
def test_what_no_graph_can_hold_is_named(monkeypatch, error, expected):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: nullcontext())
    monkeypatch.setattr(capture, "side_stream", lambda device: None)
    monkeypatch.setattr(capture, "memory_pool", lambda device: None)

    def fail():
        raise error

    with pytest.raises(expected, match=str(error)):
        capture.record(fail, torch.device("cuda"))


def weights_after(make_run, *options, folder):
    _, run_dir = make_run(*options, folder=folder)
    assert cell.run(run_dir)
    path = run_dir / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


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
    options = (
        "attention=rmfa_exp",
        "ppsbn=with",
        "batch_size=2",
        "max_steps=24",
        "task.trim_batches=true",
        "task.bucket_by_length=true",
        "trainer.precision=32-true",
        "data.pad_to_multiple_of=16",
    )
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


def test_an_optimiser_finds_gradients_and_its_state_where_they_were(graphs):
    model = Scale()
    captured = CapturedGradients(model, **PLAIN)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    places = []
    for batch in BATCHES * 3:
        captured(batch)
        optimizer.step()
        places.append(
            [
                (p.data_ptr(), p.grad.data_ptr(), *(x.data_ptr() for x in state.values()))
                for p, state in optimizer.state.items()
            ]
        )
    replayed = places[3:]
    assert len(replayed[0]) == 2 and replayed == [replayed[0]] * 6


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
    options = (
        "attention=rmfa_exp",
        "ppsbn=with",
        "batch_size=2",
        "max_steps=24",
        "task.trim_batches=true",
        "task.bucket_by_length=true",
        "data.pad_to_multiple_of=8",
        "trainer=captured",
    )
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


def read_losses(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


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


@pytest.mark.gpu
def test_dropout_differs_between_replays():
    model = nn.Sequential(nn.Linear(1, 64), nn.Dropout(0.5), nn.Linear(64, 2)).cuda()
    model.forward = lambda ids, mask: nn.Sequential.forward(model, ids.float())
    captured = CapturedGradients(model, **PLAIN)
    batch = {name: value.cuda() for name, value in BATCHES[0].items()}
    losses = [captured(batch)[0].item() for _ in range(11)]
    assert len(set(losses)) == 11 and all(math.isfinite(loss) for loss in losses)
