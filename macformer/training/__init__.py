"""From a batch to a checkpoint: objectives, the optimisation step, schedules, loggers."""

from macformer.training.capture import CapturedGradients
from macformer.training.lightning_module import ClassificationModule
from macformer.training.loggers import CurveLogger, wandb_logger
from macformer.training.objectives import BalancedClassification, Loss, classify
from macformer.training.schedules import constant, cosine, one_cycle, rsqrt
from macformer.training.step import Gradients, compile_whole

__all__ = [
    "BalancedClassification",
    "CapturedGradients",
    "ClassificationModule",
    "CurveLogger",
    "Gradients",
    "Loss",
    "classify",
    "compile_whole",
    "constant",
    "cosine",
    "one_cycle",
    "rsqrt",
    "wandb_logger",
]
