"""What a user of this package can get wrong."""

from collections.abc import Iterable


class DataError(ValueError):
    """Data that cannot be had or are not what they should be; one line says what would help."""

    def __init__(self, message: str) -> None:
        # Messages of other libraries, which ours may quote, have line breaks.
        super().__init__(" ".join(message.split()))


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse a value that is not allowed.

    Raises:
        DataError: With the value and what is allowed.
    """
    if value not in allowed:
        raise DataError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def check_generator(version: int, *, there_is: int) -> None:
    """Refuse to make data by another code than a configuration means.

    Raises:
        DataError: With both versions.
    """
    if version != there_is:
        raise DataError(
            f"task.generator_version is {version}, but this code makes other data, by version "
            f"{there_is}; a run on the older data goes on only with the code that made them"
        )
