"""Graphs without a GPU.

A stand-in takes a graph's place: it knows the buffers, the outputs and the gradients by address, as
a graph does, and leaves nothing else behind.
"""

import pytest
import torch
from torch import nn

from macformer.training import capture


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
