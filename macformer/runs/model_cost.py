"""What a trained model costs to use, and what using and training it costs without padding."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from macformer.callbacks import Stopwatch, summarise
from macformer.measuring import count_batch, count_flops, now
from macformer.models.pooling import counts_padding
from macformer.runs.build import Run
from macformer.training import ClassificationModule
from macformer.training.objectives import Batch, predict, to_device

# Of a run's steps: what its training without padding may take, the pass that warms up included.
LARGEST_SHARE = 0.1

log = logging.getLogger(__name__)


def measure_cost(built: Run, cfg: DictConfig) -> dict[str, Any]:
    """Measure a model that has been tested; it is what it was afterwards.

    A part that goes wrong is logged and left out: the run is whole without it.

    Args:
        cfg: The run's; ``cost`` in it says how much is measured, and None leaves all out.

    Returns:
        ``cost``: floating-point operations of a forward pass over one example that is padded to the
        full length, the numbers that the model keeps of a sequence of that length, and the mean,
        median and 95th percentile of the milliseconds of single test examples. Rates of
        :func:`macformer.callbacks.summarise`, on batches without needless padding: ``trimmed`` of
        training steps, and ``served`` of answers, as one pays for them in use: forward passes over
        test examples, ``batch_size`` at a time.
    """
    if cfg.get("cost") is None:
        return {}
    model, device = built.module.model, built.trainer.strategy.root_device
    number = cfg.cost.latency_examples
    measures: list[tuple[str, str, Callable[[], dict[str, Any] | None]]] = [
        ("cost", "operations", lambda: {"flops": _count_forward(built, device)}),
        ("cost", "state size", lambda: {"state_size": _state_size(model, cfg.padded_len)}),
        ("cost", "latency", lambda: _time_examples(built, device, number=number)),
        ("trimmed", "trimmed training", lambda: _time_trimmed(built, device, cfg)),
        ("served", "answers", lambda: _time_served(built, device, cfg)),
    ]
    found: dict[str, dict[str, Any]] = {"cost": {}, "trimmed": {}, "served": {}}
    with built.trainer.strategy.precision_plugin.forward_context():
        model.to(device).eval()
        for part, what, measure in measures:
            try:
                found[part] |= measure() or {}
            except Exception as error:  # of a user's model, say
                reason = str(error).partition("\n")[0]
                log.warning("the cost was not measured (%s): %s", what, reason)
    return found


def _state_size(model: nn.Module, seq_len: int) -> int | None:
    count = getattr(getattr(model, "encoder", None), "state_size", None)
    return None if count is None else count(seq_len)


def _count_forward(built: Run, device: torch.device) -> int:
    data: Any = built.data
    (example,) = data.single_examples(1, trim=False)
    batch = to_device(example, device)
    with torch.no_grad():
        return count_flops(lambda: predict(built.module.model, batch))


def _time_examples(built: Run, device: torch.device, *, number: int) -> dict[str, float | int]:
    """Time examples one at a time, from the data to the logits."""
    data: Any = built.data
    examples = data.single_examples(number, trim=not counts_padding(built.module.model))
    milliseconds = []
    with torch.no_grad():
        for is_timed in (False, True):  # the first pass warms up
            started = now(device)
            for example in examples:
                torch.clear_autocast_cache()  # a request of its own casts the weights anew
                predict(built.module.model, to_device(example, device))
                read = now(device)
                if is_timed:
                    milliseconds.append(1000 * (read - started))
                started = read
    return {
        "latency_mean_ms": float(np.mean(milliseconds)),
        "latency_p50_ms": float(np.quantile(milliseconds, 0.5)),
        "latency_p95_ms": float(np.quantile(milliseconds, 0.95)),
        "num_latency_examples": len(milliseconds),
    }


def _time_trimmed(built: Run, device: torch.device, cfg: DictConfig) -> dict[str, Any] | None:
    """Time training on batches of like length; None in a step that knows one shape, too."""
    batches = _batches(built, cfg, split="train") if built.module.takes_any_shape(device) else None
    if batches is None:
        return None
    with _kept(built.module):
        return _time_passes(batches, device, cfg.cost.trimmed_passes, built.module.step_beside())


def _time_served(built: Run, device: torch.device, cfg: DictConfig) -> dict[str, Any] | None:
    """Time answers to test examples of like length, as many at a time as a test has."""
    batches = _batches(built, cfg, split="test")
    if batches is None:
        return None

    def answer(batch: Batch) -> None:
        torch.clear_autocast_cache()
        predict(built.module.model, batch)

    with torch.no_grad():
        return _time_passes(batches, device, cfg.cost.trimmed_passes, answer)


def _batches(built: Run, cfg: DictConfig, *, split: str) -> Iterable[Batch] | None:
    """Choose batches of like length.

    None where there is nothing to trim, where padding has influence, under several ranks, and in a
    run so short that passes over them would take more than their share of it.
    """
    data: Any = built.data
    share = int(LARGEST_SHARE * built.trainer.max_steps) // (cfg.cost.trimmed_passes + 1)
    number = min(cfg.cost.trimmed_batches, share)
    if number < 1 or built.trainer.world_size > 1 or counts_padding(built.module.model):
        return None
    return data.trimmed_batches(number, split=split)


def _time_passes(
    batches: Iterable[Batch], device: torch.device, passes: int, work: Callable[[Batch], object]
) -> dict[str, Any]:
    """Time passes over the same batches, whose median is the rate; one before warms up."""
    watch = Stopwatch(device)
    for index in range(passes + 1):
        if index == 1:
            watch.start()
        for batch in batches:
            work(to_device(batch, device))
            watch.count(count_batch(batch))
        watch.lap()
    return summarise(watch.intervals, num_ranks=1)


@contextmanager
def _kept(module: ClassificationModule) -> Iterator[None]:
    """Train a model meanwhile, and give it its weights and buffers back."""
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    module.model.train()
    try:
        yield
    finally:
        module.zero_grad(set_to_none=True)
        module.model.load_state_dict(before)
        module.model.eval()
