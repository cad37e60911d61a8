"""Runs whose terminal is closed, or whose output goes into a pipe that ends before they do."""

import os
import subprocess
import sys

import pytest

from macformer.record import read_status
from macformer.runs import unread


def test_lines_for_a_reader_who_has_gone_are_dropped(monkeypatch):
    reads, writes = os.pipe()
    os.close(reads)
    with pytest.raises(BrokenPipeError):
        os.write(writes, b"as without it")
    with open(writes, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        patch.setattr(sys, "stderr", pipe)
        with unread.readers_may_go():
            print("heard by nobody", 10_000 * "x", flush=True)
            print("nor this", file=sys.stderr)


def test_streams_that_were_closed_from_the_start_stay_closed(monkeypatch):
    """As by >&- in a shell; what ends the process meanwhile does so as without them."""
    monkeypatch.setattr(sys, "stdout", None)
    with open(os.devnull, "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
    with pytest.raises(SystemExit), unread.readers_may_go():
        sys.exit(3)
    assert sys.stdout is None


def test_other_errors_of_a_stream_are_raised():
    with unread._Unread(os.open(os.devnull, os.O_RDONLY), "w") as stream, pytest.raises(OSError):
        stream.write(b"x")


def test_what_is_read_arrives_whole_and_in_order(capfd):
    print("before", end=" ")
    with unread.readers_may_go():
        print("within äöü")
        print("error", file=sys.stderr)
    print("behind")
    out, err = capfd.readouterr()
    assert (out, err) == ("before within äöü\nbehind\n", "error\n")


def test_a_cell_goes_on_when_its_pipe_has_gone(make_run):
    """As of `macformer-train ... | tee log` when tee is killed."""
    _, run_dir = make_run()
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "macformer.runs.cell", str(run_dir)]
    end = subprocess.run(command, stdout=writes, stderr=writes, timeout=120)
    os.close(writes)
    assert (end.returncode, read_status(run_dir)) == (0, "finished")
