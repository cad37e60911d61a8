"""How cells stand, from files that are whole, half written, old or gone."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from macformer.heartbeat import announced, write_progress
from macformer.watch.cells import CellView, SweepReader
from macformer.watch.estimate import seconds_left


def read(sweep, **options) -> dict[str, CellView]:
    return {view.row or view.name: view for view in SweepReader([sweep], **options).read()}


def touch_later(path) -> None:
    path.touch()
    os.utime(path, (path.stat().st_mtime + 60,) * 2)


def test_each_state_is_told_by_its_files(sweep, write_cell):
    finished = write_cell("softmax", status="finished", test=0.37, curve=[(100, 0.3), (200, 0.4)])
    write_cell("rfa", status="failed", reason="the loss is nan")
    running = write_cell("uniform", curve=[(50, 0.25)])
    write_progress(running, phase="training", step=80, max_steps=200, first_step=0, seconds=40.0)
    waiting = sweep / "listops-rmfa_exp-ppsbn_with-smoke-seed7-b2"
    with announced([waiting, running, finished]):
        for run_dir in (running, finished):
            touch_later(run_dir / "metrics.json")  # written in this call
        views = read(sweep)
    assert (views["softmax"].state, views["softmax"].accuracy) == ("finished", 0.37)
    assert views["softmax"].curve == [(100, 0.3), (200, 0.4)]
    assert (views["rfa"].state, views["rfa"].reason) == ("failed", "the loss is nan")
    uniform = views["uniform"]
    assert (uniform.state, uniform.phase, uniform.step) == ("running", "training", 80)
    assert uniform.pace == 0.5 and uniform.silent is None
    one = views["rmfa_exp + ppSBN"]
    assert (one.state, one.task, one.seed) == ("waiting", "listops", 7)


def test_what_no_sweep_will_run_does_not_wait(sweep, write_cell):
    write_cell(status="interrupted", reason="stopped by SIGTERM")
    (view,) = read(sweep).values()
    assert view.state == "interrupted"


@pytest.mark.parametrize("status", ["failed", "finished", "running"])
def test_a_cell_that_is_to_run_again_waits_until_it_has(sweep, write_cell, status):
    """A failed one, one that is overwritten, and one whose process was killed."""
    run_dir = write_cell(status=status, reason="out of memory")
    metrics = run_dir / "metrics.json"
    os.utime(metrics, (1000, 1000))
    with announced([run_dir]):
        (view,) = read(sweep).values()
        assert (view.state, view.reason, view.step) == ("waiting", "", 0)
        touch_later(metrics)
        (view,) = read(sweep).values()
        assert view.state == status


def test_a_cell_at_work_for_another_sweep_runs(sweep, write_cell):
    """It began between a second call's look at the cells and its plan."""
    run_dir = write_cell()
    os.utime(run_dir / "metrics.json", (1000, 1000))
    write_progress(run_dir, phase="training", step=80, max_steps=200)
    with announced([run_dir]):
        (view,) = read(sweep).values()
    assert (view.state, view.step) == ("running", 80)


def test_linked_folders_are_looked_into_once(tmp_path, sweep, write_cell):
    (tmp_path / "linked").symlink_to(sweep)
    (sweep / "round").symlink_to(sweep)
    write_cell()
    assert len(SweepReader([tmp_path / "linked"]).read()) == 1
    assert len(SweepReader([sweep, tmp_path / "linked"]).read()) == 1


def test_a_cell_that_has_trained_and_gives_no_sign_is_finishing(sweep, write_cell):
    write_cell(curve=[(100, 0.25), (200, 0.3)])
    (view,) = read(sweep).values()
    assert (view.phase, seconds_left([view])) == ("finishing", {view.path: 0.0})


def test_cells_of_one_name_in_two_sweeps_are_two(tmp_path, sweep, write_cell):
    first = write_cell("rfa", status="finished", seconds=10.0)
    second = tmp_path / "other" / first.name
    shutil.copytree(first, second)
    (second / "metrics.json").write_text((first / "metrics.json").read_text().replace("0.4", "0.9"))
    views = SweepReader([sweep, tmp_path / "other"]).read()
    assert [view.path for view in views] == [second, first]
    assert [view.accuracy for view in views] == [0.9, 0.4]


def test_nothing_below_a_cell_is_looked_at(sweep, write_cell):
    run_dir = write_cell()
    shutil.copytree(run_dir, run_dir / "wandb" / "copy")
    assert len(SweepReader([sweep]).read()) == 1


def test_a_cell_whose_process_has_ended_is_interrupted(sweep, write_cell):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    sign = {"host": socket.gethostname(), "pid": process.pid, "step": 5, "max_steps": 9}
    (write_cell() / "progress.json").write_text(json.dumps(sign))
    (view,) = read(sweep).values()
    assert (view.state, view.reason) == ("interrupted", "its process has ended")


def test_a_cell_without_signs_for_long_is_silent_and_not_called_dead(sweep, write_cell):
    run_dir = write_cell()
    write_progress(run_dir, phase="training", step=1, max_steps=9, first_step=0, seconds=1.0)
    for path in run_dir.iterdir():
        os.utime(path, (1000, 1000))
    (view,) = read(sweep).values()
    assert view.state == "running" and view.silent is not None and view.silent > 1e6


def test_half_written_and_vanished_files_leave_what_was_known(sweep, write_cell):
    run_dir = write_cell(curve=[(50, 0.25)])
    reader = SweepReader([sweep])
    (before,) = reader.read()
    (run_dir / "metrics.json").write_text('{"schema": 1, "stat')
    (run_dir / "metrics.csv").write_text("step,val/accuracy\n50,0.25\n60,0.")
    (during,) = reader.read()
    assert (during.state, during.row) == (before.state, before.row)
    (run_dir / "metrics.csv").write_text("step,val/accuracy\n50,0.25\nsix")
    (during,) = reader.read()
    assert during.curve[0] == (50, 0.25)
    shutil.rmtree(run_dir)
    assert reader.read() == []


def test_a_file_is_read_again_only_when_it_has_changed(sweep, write_cell, monkeypatch):
    from macformer.watch import cells

    seen = []
    monkeypatch.setattr(
        cells, "read_record", lambda path: seen.append(path) or json.loads(path.read_text())
    )
    run_dir = write_cell()
    reader = SweepReader([sweep])
    assert reader.read() == reader.read()
    assert len(seen) == 1
    record = json.loads((run_dir / "metrics.json").read_text())
    (run_dir / "metrics.json").write_text(json.dumps({**record, "status": "interrupted"}))
    (view,) = reader.read()
    assert len(seen) == 2 and view.state == "interrupted"


def test_cells_of_one_row_and_seed_are_told_apart_by_their_options(sweep, write_cell):
    for identity, rate in (("a1", 0.1), ("b2", 0.2)):
        config = {"max_steps": 200, "learning_rate": rate, "attention": {"num_features": 16}}
        write_cell("rfa", identity=identity, config=config | {"identity": identity})
    write_cell("softmax", config={"max_steps": 200, "learning_rate": 0.3})
    assert set(read(sweep)) == {"rfa (learning_rate=0.1)", "rfa (learning_rate=0.2)", "softmax"}


def test_looking_changes_nothing(sweep, write_cell):
    run_dir = write_cell(curve=[(50, 0.25)])
    write_progress(run_dir, step=1, max_steps=2)
    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("*")}
    read(sweep)
    assert {path: path.stat().st_mtime_ns for path in sweep.rglob("*")} == before


def test_only_the_cells_asked_for_count(sweep, write_cell):
    one = write_cell("softmax")
    write_cell("rfa")
    assert set(read(sweep, only=[one.name])) == {"softmax"}
