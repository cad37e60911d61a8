"""What the folder of a trained model says of the tokens that it takes."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tasks.errors import DataError
from tasks.tokenizers import load_tokenizer

_LONGEST = 10**6  # above it, what stands for no limit


class ModelFiles(NamedTuple):
    """A tokenizer, and the model that lies beside it, if one does.

    Attributes:
        tokenizer: The ``tokenizer.json``.
        vocab_size: Ids that the model knows, which may be more than the tokenizer gives.
        most_tokens: Of a text, special ones included; None where nothing is said of it.
    """

    tokenizer: Path
    vocab_size: int
    most_tokens: int | None


def find_model_files(path: str) -> ModelFiles:
    """Find the tokenizer of a folder, or the one that a path names.

    Raises:
        DataError: If there is none, or a file beside it cannot be read.
    """
    given = Path(path).expanduser()
    tokenizer = given / "tokenizer.json" if given.is_dir() else given
    num_ids = load_tokenizer(tokenizer).num_ids
    assert num_ids is not None
    of_model = _read(tokenizer.with_name("config.json"))
    of_tokenizer = _read(tokenizer.with_name("tokenizer_config.json"))
    limits = [of_model.get("max_position_embeddings"), of_tokenizer.get("model_max_length")]
    limits = [int(limit) for limit in limits if limit and 0 < limit < _LONGEST]
    return ModelFiles(
        tokenizer=tokenizer,
        vocab_size=of_model.get("vocab_size") or num_ids,
        most_tokens=min(limits, default=None),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is no JSON object")
    return values
