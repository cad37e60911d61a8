"""Pathfinder: whether two dots lie on one dashed curve (Linsley et al. 2018; Tay et al. 2021)."""

from tasks.pathfinder.task import load, prepare

__all__ = ["load", "prepare"]
