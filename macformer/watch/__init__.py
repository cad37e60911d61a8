"""Watch a sweep while it runs, from the files that it leaves: it is never spoken to.

    macformer-tables --watch outputs/paper_table

`cells` reads how each cell stands, `estimate` says how long the rest will take, `terminal` and
`page` show it, `bar` is the line that a sweep has below its own output, and `loop` goes round.
A file that is missing, half written or gone the next moment is taken as it is.
"""

from macformer.watch.loop import watch

__all__ = ["watch"]
