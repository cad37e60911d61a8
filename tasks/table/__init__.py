"""Text with a label from a user's own files: CSV, TSV, JSON lines, Parquet."""

from tasks.table.classes import Expected
from tasks.table.contents import Tokens
from tasks.table.examples import Columns
from tasks.table.plan import Shares
from tasks.table.task import load, prepare

__all__ = ["Columns", "Expected", "Shares", "Tokens", "load", "prepare"]
