"""Floors: what predictors without attention reach, below which a row of a table means nothing."""

from tasks.floors.measure import Floor, add_floors

__all__ = ["Floor", "add_floors"]
