"""Why a run failed, in one line, whichever of its ranks it was that did."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from pytorch_lightning.utilities import rank_zero_only

from macformer.record import RANK_ERROR_NAME
from macformer.runs.stop import stop_behind
from macformer.training.capture import CaptureError
from macformer.training.lightning_module import DivergedError


@contextmanager
def reason_kept(run_dir: Path) -> Iterator[None]:
    """Let a rank that fails leave its reason behind.

    The first rank does not learn it: it finds a connection closed, or is killed where it waits.
    """
    try:
        yield
    except Exception as error:
        if stop_behind(error) is None:
            line = f"rank {rank_zero_only.rank}: {failure_reason(error)}\n"
            with suppress(OSError), (run_dir / RANK_ERROR_NAME).open("x") as file:
                file.write(line)
        raise


def failure_reason(error: BaseException) -> str:
    """Say what went wrong; want of memory by that name."""
    message = textwrap.shorten(str(error), width=400, placeholder=" ...")
    if (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in message
    ):
        return f"out of memory: {message}"
    kind = type(error).__name__
    plain = isinstance(error, (CaptureError, DivergedError, ValueError, OSError))
    return message if plain and message else f"{kind}: {message}"
