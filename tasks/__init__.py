"""Tasks, Long Range Arena's and others: everything up to and including the batch."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import, which the generators' worker processes have no use for.
    if name == "TaskDataModule":
        from tasks.feeding.data_module import TaskDataModule

        return TaskDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
