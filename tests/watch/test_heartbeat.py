"""Signs of life: who writes them, who reads them, and what is left of them."""

import json
import os
import socket
import subprocess
import sys

import pytest

from macformer.heartbeat import (
    announced,
    is_alive,
    read_plans,
    read_sign,
    remove_progress,
    write_progress,
)


@pytest.fixture(scope="module")
def ended() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_progress_is_read_as_it_was_written_and_is_gone_once_removed(tmp_path):
    write_progress(tmp_path, phase="training", step=3)
    sign = read_sign(tmp_path / "progress.json")
    assert sign is not None and (sign["phase"], sign["step"]) == ("training", 3)
    assert is_alive(sign)
    remove_progress(tmp_path)
    assert read_sign(tmp_path / "progress.json") is None and not list(tmp_path.iterdir())
    remove_progress(tmp_path)


def test_a_sweep_announces_its_cells_while_it_is_at_work(tmp_path):
    run_dirs = [tmp_path / "a" / "one", tmp_path / "a" / "two", tmp_path / "b" / "three"]
    with pytest.raises(SystemExit), announced(run_dirs):
        (plan,) = read_plans(tmp_path / "a")
        assert plan["cells"] == ["one", "two"]
        assert [plan["cells"] for plan in read_plans(tmp_path / "b")] == [["three"]]
        sys.exit(1)  # as a stopped sweep does
    assert not list(tmp_path.rglob(".sweep*"))


def test_a_killed_sweep_has_no_plan_and_the_next_one_sweeps_it_away(tmp_path, ended):
    orphan = tmp_path / f".sweep-{socket.gethostname()}-{ended}.json"
    orphan.write_text(json.dumps({"host": socket.gethostname(), "pid": ended, "cells": ["one"]}))
    elsewhere = tmp_path / ".sweep-elsewhere-1.json"
    elsewhere.write_text(json.dumps({"host": "elsewhere", "pid": 1, "cells": ["far"]}))
    assert [plan["cells"] for plan in read_plans(tmp_path)] == [["far"]]
    with announced([tmp_path / "two"]):
        assert not orphan.exists() and elsewhere.exists()


def test_life_is_known_on_this_machine_alone(ended):
    here = {"host": socket.gethostname()}
    assert is_alive({**here, "pid": os.getpid()}) is True
    assert is_alive({**here, "pid": ended}) is False
    assert is_alive({"host": "elsewhere", "pid": ended}) is None
    assert is_alive({}) is None


def test_half_a_file_is_no_sign(tmp_path):
    (tmp_path / "progress.json").write_text('{"step": 1')
    assert read_sign(tmp_path / "progress.json") is None


def test_a_folder_that_cannot_be_written_stops_no_one(tmp_path):
    (tmp_path / "file").write_text("")
    write_progress(tmp_path / "file", step=1)
    with announced([tmp_path / "file" / "cell"]):
        pass
