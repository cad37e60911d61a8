"""Partials of a configuration, called without Hydra."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def without_hydra(function: Callable[P, T]) -> Callable[P, T]:
    """Return a partial that Hydra made as one of Python's, and anything else as it is.

    Hydra's own checks its target anew at every call. That takes a quarter of a millisecond on a
    CPU, in every layer or step that makes the call, and no compiled program can hold it.
    """
    if not isinstance(function, partial):
        return function
    return partial(function.func, *function.args, **function.keywords)
