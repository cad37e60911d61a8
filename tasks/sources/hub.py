"""Fetch a data set from the Hugging Face Hub, or say at once what would help."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from tasks.errors import DataError, Unavailable

if TYPE_CHECKING:
    from datasets import Dataset

_TIMEOUT_SECONDS = 10

_logger = logging.getLogger(__name__)


def load_from_hub(name: str, split: str, *, columns: Sequence[str], hint: str) -> "Dataset":
    """Load a split from the Hub, or from its local cache where the Hub is out of reach.

    Args:
        columns: What its rows must have.
        hint: What to do where neither has it.

    Raises:
        DataError: If the Hub knows no such name, neither has it, or it is of another kind.
    """
    # Two seconds of import that only a first preparation has to spend.
    import datasets

    within_reach = _ask_for(name, hint=hint)
    try:
        with nullcontext() if within_reach else _offline():
            splits = datasets.load_dataset(name)
    # The library has errors of its own, and passes on those of its HTTP client.
    except Exception as error:
        reason = (
            f"cannot be loaded from the Hugging Face Hub ({error})"
            if within_reach
            else "is not in the cache and the Hugging Face Hub is out of reach"
        )
        raise Unavailable(f"{name} {reason}; {hint}") from error
    if split not in splits:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(map(repr, splits))}")
    for column in columns:
        if column not in splits[split].column_names:
            found = ", ".join(map(repr, splits[split].column_names))
            raise DataError(f"{name} has no column {column!r} in {split}; it has {found}")
    return splits[split]


def _ask_for(name: str, *, hint: str) -> bool:
    """Say whether the Hub answers; one request before many that would be tried for half a minute.

    Raises:
        DataError: If it answers that it has no such data set.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=_TIMEOUT_SECONDS)
    except GatedRepoError as error:
        raise DataError(f"{name} asks for access on the Hugging Face Hub; {hint}") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(
            f"task.hub_name is {name!r}, and the Hugging Face Hub has no data set of that name "
            f"(a private one asks for a login); {hint}"
        ) from error
    # The class of the error depends on the HTTP client that the installed version uses.
    except Exception as error:
        _logger.debug("the Hub is out of reach (%s); looking for %s in its cache", error, name)
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Keep both libraries, which read their environment once, from trying the network."""
    import huggingface_hub.constants as hub_constants
    from datasets import config as datasets_config

    before = datasets_config.HF_HUB_OFFLINE, hub_constants.HF_HUB_OFFLINE
    datasets_config.HF_HUB_OFFLINE = hub_constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets_config.HF_HUB_OFFLINE, hub_constants.HF_HUB_OFFLINE = before
