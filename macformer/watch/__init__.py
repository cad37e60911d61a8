"""Watch a sweep while it runs, by reading its files; the sweep itself is never contacted.

    macformer-tables --watch outputs/paper_table

`cells` reads the state of each cell, `estimate` predicts the time left, `terminal` and `page` show
both, `bar` is the status line below a sweep's own output, and `loop` repeats the cycle. Readers
accept files that are missing, half written or about to disappear.
"""

from macformer.watch.loop import watch

__all__ = ["watch"]
