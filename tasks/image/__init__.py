"""Image: CIFAR-10 as a row of grey pixels (Tay et al. 2021)."""

from tasks.image.task import load, prepare

__all__ = ["load", "prepare"]
