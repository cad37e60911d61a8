"""Text with a label from files of one's own: CSV, TSV, JSON lines, Parquet."""

from tasks.table.task import load, prepare

__all__ = ["load", "prepare"]
