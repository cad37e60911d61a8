"""The sheet by which a team decides whether a row pays, at its own rates.

    macformer-tables outputs/logs --decide hour=1.2,loss=1

reads the rates (`rates`), prices each run (`costs`), sets each result beside its reference
(`cases`), judges it (`verdicts`) and lays it out (`sheet`).
"""

from macformer.tables.decision.cases import decide
from macformer.tables.decision.rates import MEANINGS, Rates, read_rates
from macformer.tables.decision.sheet import decision_tables

__all__ = ["MEANINGS", "Rates", "decide", "decision_tables", "read_rates"]
