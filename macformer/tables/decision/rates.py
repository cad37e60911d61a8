"""What a decision is made by, and only those who decide can know: prices, volumes and bounds."""

from dataclasses import dataclass, fields
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

from yaml import YAMLError, safe_load

from macformer.tables.runs import TableError

MEANINGS = {
    "hour": "price of one device, a GPU or the cores of a run on the CPU, for an hour",
    "kwh": "price of a kilowatt-hour, where the hour does not include it",
    "watts": "power of one device at work, where no counter measured it",
    "documents": "documents served in a month",
    "months": "time in which a change must be won back",
    "once": "price of the change itself, beside training and search",
    "loss": "points of accuracy that may be lost",
    "saving": "% by which serving must become cheaper",
    "target": "% of validation accuracy to be reached",
}
LIMITS = {"saving": 100, "target": 100}  # of what is a share
ABOVE_ZERO = {"documents"}
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Rates:
    """The numbers of ``MEANINGS``, in one currency; NaN where one was not given.

    None has a default: what needs a number that nobody gave stays blank.
    """

    hour: float = nan
    kwh: float = nan
    watts: float = nan
    documents: float = nan
    months: float = nan
    once: float = nan
    loss: float = nan
    saving: float = nan
    target: float = nan

    def is_given(self, name: str) -> bool:
        return not isnan(getattr(self, name))


def read_rates(text: str) -> Rates:
    """Read ``hour=1.2,loss=1``, or a YAML file that holds the same names.

    Raises:
        TableError: If there is no such file or rate, or a value is none that it can have.
    """
    given = _read_file(Path(text)) if text.endswith(SUFFIXES) else _split(text)
    values = {name: _number(name, value) for name, value in given.items()}
    rates = Rates(**values)
    if rates.is_given("months") and not rates.is_given("documents"):
        raise TableError("--decide: months=... needs documents=..., those of one month")
    return rates


def _read_file(path: Path) -> dict[str, Any]:
    try:
        found = safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, YAMLError) as error:
        raise TableError(f"--decide: cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise TableError(f"--decide: {path} holds no rates such as 'hour: 1.2'")
    return {str(name): value for name, value in found.items()}


def _split(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise TableError(
                f"--decide: {part} is neither a rate such as hour=1.2 nor a .yaml file; "
                "folders stand before it"
            )
        if name.strip() in found:
            raise TableError(f"--decide: {name.strip()} is given twice")
        found[name.strip()] = value.strip()
    return found


def _number(name: str, value: Any) -> float:
    known = [field.name for field in fields(Rates)]
    if name not in known:
        raise TableError(f"--decide: there is no rate {name}; there are {', '.join(known)}")
    try:
        number = nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = nan
    if not (isfinite(number) and number >= 0) or (number == 0 and name in ABOVE_ZERO):
        least = "above 0" if name in ABOVE_ZERO else "from 0 on"
        raise TableError(
            f"--decide: {name}={value} is no number {least}; it is the {MEANINGS[name]}"
        )
    if number > LIMITS.get(name, number):
        raise TableError(f"--decide: {name}={value} is above {LIMITS[name]} %")
    return number
