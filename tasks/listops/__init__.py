"""ListOps: the value of a nested expression (Nangia & Bowman 2018; Tay et al. 2021)."""

from tasks.listops.task import load, prepare

__all__ = ["load", "prepare"]
