"""What a user of this package can get wrong."""

from collections.abc import Iterable


class DataError(ValueError):
    """Data that cannot be had or are not what they should be; the message says what would help."""


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse a value that is not allowed.

    Raises:
        DataError: With the value and what is allowed.
    """
    if value not in allowed:
        raise DataError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
