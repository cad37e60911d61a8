"""Series of several channels from files of one's own: tables, NumPy archives, .ts."""

from tasks.series.task import load, prepare

__all__ = ["load", "prepare"]
