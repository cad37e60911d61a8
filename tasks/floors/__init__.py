"""Floors: what predictors without attention reach. A row of a table at a floor has shown nothing.

A task ends its preparation with :func:`add_floors` and names a predictor for each floor:
:func:`tasks.floors.sequences.predict_by_ngrams` for any token ids,
:func:`~tasks.floors.sequences.predict_by_overlap` for pairs,
:func:`tasks.floors.series.predict_by_statistics` for series, :mod:`tasks.floors.pictures` for
pictures. :func:`state_floors` is for generated tasks whose floors are known exactly.
"""

from tasks.floors.measure import ExactFloor, Floor, add_floors, state_floors

__all__ = ["ExactFloor", "Floor", "add_floors", "state_floors"]
