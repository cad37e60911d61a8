"""Fetch a data set from the Hugging Face Hub, or say at once what would help."""

import logging
from typing import TYPE_CHECKING

from tasks.errors import DataError

if TYPE_CHECKING:
    from datasets import DatasetDict

_TIMEOUT_SECONDS = 10

_logger = logging.getLogger(__name__)


def load_from_hub(name: str, *, hint: str) -> "DatasetDict":
    """Load a data set from the Hub, or from its local cache where the Hub is out of reach.

    Args:
        hint: What to do where neither has it.

    Raises:
        DataError: If neither has it.
    """
    # Two seconds of import that only a first preparation has to spend.
    import datasets
    import huggingface_hub
    from datasets import config as datasets_config

    try:
        # One request before load_dataset, which would retry for half a minute without a network.
        huggingface_hub.HfApi().dataset_info(name, timeout=_TIMEOUT_SECONDS)
    # The class of the error depends on the HTTP client that the installed version uses.
    except Exception as error:
        _logger.debug("the Hub is out of reach (%s); looking for %s in its cache", error, name)
        datasets_config.HF_HUB_OFFLINE = True
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} is not in the cache and the Hugging Face Hub is out of reach; {hint}"
        ) from error
