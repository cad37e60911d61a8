"""Series of several channels from a user's own files: tables, NumPy archives, .ts."""

from tasks.series.rows import Tokens, Windows
from tasks.series.tables import SeriesColumns
from tasks.series.task import load, prepare

__all__ = ["SeriesColumns", "Tokens", "Windows", "load", "prepare"]
