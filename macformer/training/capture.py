"""The gradients of a step as one CUDA graph."""

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from macformer.training.objectives import Batch, Loss
from macformer.training.step import Gradients

Shapes = tuple[tuple[str, torch.Size], ...]  # of the tensors of a batch

_WARMUP_CALLS = 3  # as torch's notes on CUDA graphs advise; they are steps like any other
_MAX_GRAPHS = 32


class CaptureError(RuntimeError):
    """A step that no graph can hold."""


class CapturedGradients:
    r"""Compute what :class:`~macformer.training.step.Gradients` computes by replaying a CUDA graph.

    The first calls run as they are and warm up. The next one is recorded: from then on a batch is
    copied into fixed buffers, and forward pass, backward pass and clipping are one launch. Devices
    other than CUDA have no graphs, and compute every call anew.

    Each shape of a batch warms up and has a graph of its own. They share their memory, for only one
    of them runs at a time: together they need what the largest needs.

    The optimiser stays outside. A one-cycle schedule moves Adam's :math:`\beta_1`, a number that
    the graph of a fused optimiser would freeze, and the few launches of such an optimiser are
    hidden behind the replay.

    Random numbers go on as without a graph. Dropout draws from torch's generator, whose state each
    replay advances; features that are redrawn walk through a pool by an index on the device. Where
    a parameter or a buffer is replaced, instead of written into, the graph is recorded anew.

    Args:
        options: Those of :class:`~macformer.training.step.Gradients`.

    Raises:
        ValueError: If there are several ranks, or batches of more than 32 shapes.
        CaptureError: If the step waits for the device, as no graph can.
    """

    def __init__(self, model: nn.Module, **options: Any):
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ValueError(
                f"a captured step runs on one rank, not on {dist.get_world_size()}; "
                "use trainer=default"
            )
        self._gradients = Gradients(model, **options)
        self._num_calls: Counter[Shapes] = Counter()
        self._recordings: dict[Shapes, _Recording] = {}

    def __call__(self, batch: Batch) -> Loss:
        """Return the loss before the step and the counts, all on the device."""
        device = batch["labels"].device
        if not can_capture(device):
            return self._gradients(batch)
        shapes = tuple((name, value.shape) for name, value in batch.items())
        self._num_calls[shapes] += 1
        if len(self._num_calls) > _MAX_GRAPHS:
            raise ValueError(
                f"batches have more than {_MAX_GRAPHS} shapes, and each is a graph of its own; "
                "use a larger task.pad_to_multiple_of"
            )
        if self._num_calls[shapes] <= _WARMUP_CALLS:
            return run_beside(partial(self._gradients, batch), side_stream(device))
        if any(recording.is_stale() for recording in self._recordings.values()):
            self._recordings.clear()  # the memory of stale graphs is free for new ones
        if shapes not in self._recordings:
            self._recordings[shapes] = _Recording(self._gradients, batch)
        return self._recordings[shapes](batch)


class _Recording:
    """A graph, with all tensors whose addresses are written in it."""

    def __init__(self, gradients: Gradients, batch: Batch):
        model = gradients.model
        model.zero_grad(set_to_none=True)  # the graph allocates the gradients it writes to
        self._batch = {name: value.clone() for name, value in batch.items()}
        device = batch["labels"].device
        self._replay, self._outputs = record(partial(gradients, self._batch), device)
        self._grads = [(parameter, parameter.grad) for parameter in model.parameters()]
        self._places = [
            (tensors, name, tensor)
            for module in model.modules()
            for tensors in (module._parameters, module._buffers)
            for name, tensor in tensors.items()
        ]

    def is_stale(self) -> bool:
        """Say whether the model holds a tensor that the graph does not know."""
        return any(tensors.get(name) is not tensor for tensors, name, tensor in self._places)

    def __call__(self, batch: Batch) -> Loss:
        for name, value in batch.items():
            self._batch[name].copy_(value, non_blocking=True)
        self._replay()
        for parameter, grad in self._grads:
            parameter.grad = grad  # a validation in between takes gradients away
        return Loss(*(output.clone() for output in self._outputs))


def can_capture(device: torch.device) -> bool:
    """Say whether a device has graphs."""
    return device.type == "cuda"


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of warm-up and recording: one, for each keeps workspaces of its own."""
    return torch.cuda.Stream(device)


@cache
def memory_pool(device: torch.device) -> Any:
    """Return the memory that the graphs of a device share."""
    with torch.cuda.device(device):
        return torch.cuda.graph_pool_handle()


def record(function: Callable[[], Loss], device: torch.device) -> tuple[Callable[[], None], Loss]:
    """Record a function without running it.

    Returns:
        What replays it, and the tensors that hold its results after each replay.

    Raises:
        CaptureError: If it does what a graph cannot hold.
    """
    graph = torch.cuda.CUDAGraph()
    options = {"pool": memory_pool(device), "stream": side_stream(device)}
    try:
        with torch.cuda.graph(graph, **options):
            outputs = function()
    except RuntimeError as error:
        cause = _first(error)
        if isinstance(cause, torch.OutOfMemoryError) or "out of memory" in str(cause):
            raise cause from None
        raise CaptureError(
            f"the step cannot be captured ({str(cause).partition(chr(10))[0]}); use trainer=default"
        ) from error
    return graph.replay, outputs


def _first(error: BaseException) -> BaseException:
    """Return the error behind others: the end of a recording fails by itself after one."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return error


def run_beside(function: Callable[[], Loss], stream: torch.cuda.Stream) -> Loss:
    """Run a function on a stream of its own, as work that is recorded later must have been."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        outputs = function()
    torch.cuda.current_stream().wait_stream(stream)
    return outputs
