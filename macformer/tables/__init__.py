"""Tables, plots and a page of finished runs, beside the published numbers.

    macformer-tables outputs/demo

reads every `metrics.json` below the folders (`runs`), refuses what is not comparable
(`comparable`), reduces seeds to results (`summary`), lays them out (`build`) and writes them in
each format (`formats`, `plots`, `lengths`, `page`).
"""

from macformer.tables.cli import main, make_tables, table_console
from macformer.tables.formats import print_tables
from macformer.tables.runs import TableError

__all__ = ["TableError", "main", "make_tables", "print_tables", "table_console"]
