"""A run is a folder: compose, build, train, test, record; a sweep is many."""

from macformer.runs.sweep import RunSweep

__all__ = ["RunSweep"]
