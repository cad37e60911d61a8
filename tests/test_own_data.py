"""A user's table is a task like any other, for every command."""

from pathlib import Path

import pytest

from macformer.runs.config import compose

TASK = """
defaults: [_table, _self_]
name: logs
path: logs.csv
sha256: abc
text: [message]
label: severity
classes: ["ERROR", "INFO"]
num_classes: 2
max_len: 24
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "my" / "task").mkdir(parents=True)
    (tmp_path / "my" / "task" / "logs.yaml").write_text(TASK)
    return tmp_path / "my"


def identity(folder: Path, *options: str) -> str:
    return compose("task=logs", *options, config_dirs=[folder]).identity


def test_where_a_file_lies_is_no_part_of_a_run_and_what_it_holds_is(folder):
    known = identity(folder)
    assert identity(folder, "task.path=/elsewhere/logs.csv") == known
    assert identity(folder, "task.path_test=/elsewhere/test.csv") == known
    for option in ("task.sha256=abd", "task.text=[body]", "task.max_len=25", "task.group=host"):
        assert identity(folder, option) != known, option
