"""What came of the suite for each variant, from the process of pytest to the one that asked."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest


@dataclass
class Outcome:
    """What came of one property of a variant.

    Attributes:
        variant: As ``attention/elu``.
        property: The name of its test, in words.
        failures: What those that failed said.
        notes: What was only warned about.
    """

    variant: str
    property: str
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Recorder:
    """A plugin of pytest that writes the outcomes of a session.

    A property whose tests were all skipped was not asked of a variant, and has no outcome.
    """

    def __init__(self, file: Path):
        self.file = file
        self.outcomes: dict[str, Outcome] = {}  # by the address of a test
        self.asked: set[str] = set()  # addresses of the tests that were not skipped

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        known: dict[tuple[str, str], Outcome] = {}
        for item in session.items:
            variant = variant_of(item)
            if variant is not None:
                assert isinstance(item, pytest.Function)
                key = (variant, item.originalname.removeprefix("test_").replace("_", " "))
                self.outcomes[item.nodeid] = known.setdefault(key, Outcome(*key))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = self.outcomes.get(report.nodeid)
        if report.failed or (report.when == "call" and report.passed):
            self.asked.add(report.nodeid)
        if outcome is not None and report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            outcome.failures.append(str(report.longrepr) if crash is None else crash.message)

    def pytest_warning_recorded(self, warning_message, when: str, nodeid: str) -> None:
        outcome = self.outcomes.get(nodeid)
        if outcome is not None and warning_message.category is UserWarning:
            outcome.notes.append(str(warning_message.message))

    def pytest_sessionfinish(self) -> None:
        asked = (outcome for test, outcome in self.outcomes.items() if test in self.asked)
        outcomes = {id(outcome): outcome for outcome in asked}
        self.file.write_text(json.dumps([asdict(outcome) for outcome in outcomes.values()]))


def variant_of(item: pytest.Item) -> str | None:
    """Name the variant that a test is about, None where it is about none."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    case = params.get("case", params.get("mixer"))
    return None if case is None else str(getattr(case, "variant", case))


def read_outcomes(file: Path) -> list[Outcome]:
    return [Outcome(**outcome) for outcome in json.loads(file.read_text())]
