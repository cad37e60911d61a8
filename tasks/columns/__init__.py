"""Columns of a user's own files, row by row, each value as the text that stands in the file.

Nothing is inferred: "NA" is a text like any other, "007" keeps its zeros, and a whole number does
not become a float because another row lacks one.
"""

from tasks.columns.files import Form, Row, column_names, find_files, read_rows
from tasks.columns.given import Files

__all__ = ["Files", "Form", "Row", "column_names", "find_files", "read_rows"]
