"""Floors: what predictors without attention reach, below which a row of a table means nothing.

A task ends its preparation with :func:`add_floors`, and names a predictor for each floor: of ids,
whatever they stand for, :func:`tasks.floors.sequences.predict_by_ngrams`; of pairs,
:func:`~tasks.floors.sequences.predict_by_overlap`; of numbers over time,
:func:`tasks.floors.series.predict_by_statistics`; of pictures, :mod:`tasks.floors.pictures`.
:func:`state_floors` is for laws whose floors are known exactly.
"""

from tasks.floors.measure import ExactFloor, Floor, add_floors, state_floors

__all__ = ["ExactFloor", "Floor", "add_floors", "state_floors"]
