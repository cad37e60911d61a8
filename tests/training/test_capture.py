"""Gradients from a graph over fixed buffers."""

import math
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

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


@contextmanager
def end_that_fails(graph, **options):
    """Stand in for a recording, whose end fails after an error within it, by another error."""
    try:
        yield
    except RuntimeError:
        raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("operation not permitted when stream is capturing"), CaptureError),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (RuntimeError("CUDA error: out of memory"), RuntimeError),
    ],
)
def test_what_no_graph_can_hold_is_named(monkeypatch, error, expected):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", end_that_fails)
    monkeypatch.setattr(capture, "side_stream", lambda device: None)
    monkeypatch.setattr(capture, "memory_pool", lambda device: None)

    def fail():
        raise error

    with pytest.raises(expected, match=str(error)):
        capture.record(fail, torch.device("cuda"))


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


@pytest.mark.gpu
def test_dropout_differs_between_replays():
    model = nn.Sequential(nn.Linear(1, 64), nn.Dropout(0.5), nn.Linear(64, 2)).cuda()
    model.forward = lambda ids, mask: nn.Sequential.forward(model, ids.float())
    captured = CapturedGradients(model, **PLAIN)
    batch = {name: value.cuda() for name, value in BATCHES[0].items()}
    losses = [captured(batch)[0].item() for _ in range(11)]
    assert len(set(losses)) == 11 and all(math.isfinite(loss) for loss in losses)
