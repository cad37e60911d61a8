"""Learning-rate schedules of the protocols, stepped once per optimiser step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

MIN_CYCLE = 4  # steps below which a rise and a fall cannot be told apart


def one_cycle(optimizer: Optimizer, *, max_steps: int, warmup_steps: int) -> OneCycleLR:
    """Rise linearly from 1/25 of the peak over the warm-up, then fall linearly to nearly zero.

    As in Skyformer (``src/main.py``), torch's default cycling of Adam's first momentum included.
    In a trial shorter than its recipe's warm-up the rise takes all steps but the last.
    """
    total_steps = max(max_steps, MIN_CYCLE)
    warmup_steps = min(max(warmup_steps, 2), total_steps - 1)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=warmup_steps / total_steps,
        anneal_strategy="linear",
    )


def rsqrt(optimizer: Optimizer, *, warmup_steps: int) -> LambdaLR:
    r"""Multiply by :math:`\min(1, t / w) / \sqrt{\max(t, w)}` (Tay et al. 2021, sequence tasks).

    Without a warm-up nothing rises: the first two steps have the whole rate.
    """

    def factor(step: int) -> float:
        rise = min(1.0, step / warmup_steps) if warmup_steps else 1.0
        return rise / math.sqrt(max(step, warmup_steps, 1))

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, *, warmup_steps: int) -> LambdaLR:
    r"""Multiply by :math:`\min(1, t / w)`: rise linearly over the warm-up, then stay."""

    def factor(step: int) -> float:
        return min(1.0, step / warmup_steps) if warmup_steps else 1.0

    return LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, *, max_steps: int, warmup_steps: int) -> LambdaLR:
    """Rise linearly over the warm-up, then fall to zero along half a cosine."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        progress = (step - warmup_steps) / max(max_steps - warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    return LambdaLR(optimizer, factor)
