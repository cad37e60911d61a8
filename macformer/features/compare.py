"""What the candidates cost, beside what they would replace."""

import statistics
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from macformer.attention import RMFA, SoftmaxAttention
from macformer.features.search import Choice, Inputs, Kernel, attend_exactly, measure_own_error
from macformer.measuring import MIB, measure_peak, now
from macformer.ops import maclaurin_attention


def compare(
    choices: list[Choice],
    attentions: list[nn.Module],
    inputs: list[Inputs],
    kernel: Kernel,
    cfg: DictConfig,
) -> pd.DataFrame:
    """Time every candidate and what it would replace, forward and backward."""
    softmax = SoftmaxAttention(num_heads=inputs[0].query.shape[1], head_dim=0, dropout=0.0)
    rows = [
        {
            "attention": f"{choice.sampler}, degrees to {choice.degree}",
            "features": choice.num_features,
            "error / signal": choice.error,
            "columns": choice.columns,
        }
        for choice in choices
    ]
    runs: list[Callable[..., Tensor]] = [
        partial(maclaurin_attention, features=choice.features) for choice in choices
    ]
    own = [layer.features for layer in attentions if isinstance(layer, RMFA)]
    if own:
        rows.append(
            {
                "attention": "the model's own",
                "features": attentions[0].num_features,
                "error / signal": measure_own_error(inputs, own),
                "columns": sum(sum(features.widths) for features in own) // len(own),
            }
        )
        runs.append(partial(maclaurin_attention, features=own[0]))
    rows += [{"attention": f"exact {kernel.name}", "error / signal": 0.0}, {"attention": "softmax"}]
    runs += [partial(attend_exactly, kernel), softmax]
    costs = _measure_costs(runs, inputs[0], cfg)
    table = pd.DataFrame([row | cost for row, cost in zip(rows, costs, strict=True)])
    table["time / softmax"] = table["ms"] / table["ms"].iloc[-1]
    return table


def _measure_costs(
    runs: list[Callable[..., Tensor]], inputs: Inputs, cfg: DictConfig
) -> list[dict[str, float]]:
    """Return median time and peak memory of a forward and backward pass of one layer's batch.

    On a GPU the launches are a part of the time, as they are in a step that is not captured.
    """
    tensors, device = [x.detach().requires_grad_() for x in inputs[1:4]], torch.device(cfg.device)

    def step(run: Callable[..., Tensor]) -> None:
        run(*tensors, key_padding_mask=inputs.key_padding_mask).sum().backward()
        for x in tensors:
            x.grad = None

    def seconds(run: Callable[..., Tensor]) -> float:
        start = now(device)
        step(run)
        return now(device) - start

    for run in runs:  # a first product allocates a workspace that all share
        step(run)
    peaks = [measure_peak(partial(step, run), cfg.device) / MIB for run in runs]
    rounds = [[seconds(run) for run in runs] for _ in range(cfg.rounds)]
    medians = [1e3 * statistics.median(times) for times in zip(*rounds, strict=True)]
    return [{"ms": ms, "peak MiB": peak} for ms, peak in zip(medians, peaks, strict=True)]
