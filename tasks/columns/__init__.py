"""Columns of a user's own files, row by row, each value as the text in the file.

No types are inferred: "NA" is a text like any other, "007" keeps its zeros, and a whole number does
not become a float because another row has no value.
"""

from tasks.columns.files import Form, Row, column_names, find_files, read_rows
from tasks.columns.given import Files

__all__ = ["Files", "Form", "Row", "column_names", "find_files", "read_rows"]
