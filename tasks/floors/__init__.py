"""Floors: what predictors without attention reach, below which a row of a table means nothing."""

from tasks.floors.measure import ExactFloor, Floor, add_floors, state_floors

__all__ = ["ExactFloor", "Floor", "add_floors", "state_floors"]
