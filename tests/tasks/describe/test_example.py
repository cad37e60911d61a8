"""The example data have one answer, which takes the order of events to find."""

import csv

import pytest

from tasks.describe import cli
from tasks.describe.example import EXAMPLES, write_machines, write_sessions


def test_a_worn_machine_shakes_before_it_heats_up(tmp_path):
    """In each two hours, at the first step that rises above half of what the events add."""
    path = tmp_path / "machines.csv"
    write_machines(path, num_machines=2, num_steps=1280)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * 1280

    def first_rise(period: list[dict[str, str]], name: str, bound: float) -> int:
        above = [float(row[name]) > bound for row in period]
        return next(i for i in range(1, len(above)) if above[i] and not above[i - 1])

    seen = set()
    for first in range(0, len(rows), 128):
        period = rows[first : first + 128]
        if len({row["state"] for row in period}) == 1:
            shakes = first_rise(period, "vibration", 0.9)
            expected = "worn" if shakes < first_rise(period, "temperature", 66) else "normal"
            assert period[0]["state"] == expected
            seen.add(expected)
    assert seen == {"worn", "normal"}


def test_the_example_is_told_apart_by_the_order_of_two_events_alone(tmp_path):
    path = tmp_path / "example.csv"
    write_sessions(path, num_rows=300)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 300
    for row in rows:
        waits = row["message"].index("disk wait") > row["message"].index("cache miss")
        expected = "failed" if "checksum" in row["message"] else "slow" if waits else "ok"
        assert row["outcome"] == expected


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_never_replaces_a_file(tmp_path, capsys, name):
    path = tmp_path / "mine.csv"
    path.write_text("mine")
    assert cli.main([str(path), "--example", name]) == 2
    expected = f"macformer-describe: {path} exists; --example writes a new file\n"
    assert capsys.readouterr() == ("", expected)
    assert path.read_text() == "mine"
