"""What a sweep launches, what it leaves, and what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from macformer.record import read_status
from macformer.runs import plan as planning
from macformer.runs import process, sweep

SMALL = """
defaults:
  - _self_
  - task: listops
  - attention: softmax
  - rotary: without
  - pretrain: none
  - ppsbn: without
  - mixer: attention
  - recipe: smoke
seed: 0
logger: null
sweep: runs
output_dir: ???
overwrite: false
retry: null
best_of: []
exclusive: true
identity: small
cell: ${hydra:runtime.choices.task}-${hydra:runtime.choices.attention}-${seed}
hydra:
  sweep: {dir: "${output_dir}/${sweep}", subdir: "${cell}"}
"""


@pytest.fixture
def compose_sweep(tmp_path: Path, compose_multirun):
    """Compose the multirun of a small configuration, whose cells have the names of ours."""
    folder = tmp_path / "configs"
    groups = {"task": "listops", "attention": "softmax uniform", "recipe": "smoke"}
    groups |= {"mixer": "attention", "rotary": "without", "ppsbn": "without"}
    for group, names in groups.items():
        (folder / group).mkdir(parents=True)
        for name in names.split():
            (folder / group / f"{name}.yaml").touch()
    (folder / "pretrain").mkdir()
    (folder / "pretrain" / "none.yaml").write_text("# @package _global_\npretrain: null\n")
    first = "run: {paths: {run_dir: '${output_dir}/pretraining'}}\n"
    (folder / "pretrain" / "mlm.yaml").write_text(first)
    (folder / "train.yaml").write_text(SMALL)
    with initialize_config_dir(str(folder), version_base="1.3"):
        yield lambda *overrides: compose_multirun(*overrides, f"output_dir={tmp_path}")


@pytest.fixture
def launched(monkeypatch):
    """Replace the processes of cells: each writes down a finished run, or what a test asks for."""
    cells = []

    def run(run_dir, *, overwrite, cwd):
        cells.append(run_dir.name)
        assert (run_dir / "config.yaml").exists()
        set_status(run_dir, "finished")

    monkeypatch.setattr(process, "run_in_process", run)
    monkeypatch.setattr(sweep, "show_tables", lambda folder: None)
    return cells


def set_status(run_dir: Path, status: str) -> None:
    run_dir.mkdir(exist_ok=True, parents=True)
    accuracy = {"best": {"test": 0.4}} if status == "finished" else None
    record = {"status": status, "reason": "of a test", "accuracy": accuracy}
    (run_dir / "metrics.json").write_text(json.dumps(record))


def plan(config):
    return planning.plan_cells(config, GlobalHydra.instance().config_loader())


FOUR = ("attention=softmax,uniform", "seed=0,1")


def test_a_pattern_that_matches_nothing_stops_the_sweep_before_it_starts(
    compose_sweep, launched, capsys
):
    with pytest.raises(SystemExit) as stop:
        sweep.RunSweep().on_multirun_start(compose_sweep("attention=glob([softmax,sfotmax*])"))
    assert stop.value.code == 2 and launched == []
    error = capsys.readouterr().err
    assert "sfotmax* in attention=" in error and "there are softmax, uniform" in error
    assert len(error.splitlines()) == 1


def test_only_what_is_left_is_launched(compose_sweep, launched, capsys):
    config = compose_sweep(*FOUR)
    finished, failed, interrupted, new = (cell.run_dir for cell in plan(config))
    set_status(finished, "finished")
    set_status(failed, "failed")
    set_status(interrupted, "running")
    assert not sweep.run_sweep(config)
    assert launched == [interrupted.name, new.name]
    out = capsys.readouterr().out
    assert (
        "4 cells; 1 finished; 1 failed before (retry=failed runs them again); "
        "2 to run, 1 of them resumed" in out
    )
    assert "1 failed, 3 finished" in out


def test_cells_that_are_finished_on_other_data_are_named_and_left(
    compose_sweep, launched, monkeypatch, capsys
):
    config = compose_sweep(*FOUR)
    outdated, *others = (cell.run_dir for cell in plan(config))
    for run_dir in (outdated, *others):
        set_status(run_dir, "finished")

    def change(self, cfg, run_dir):
        return "other data" if run_dir == outdated else None

    monkeypatch.setattr(planning.DataNow, "change", change)
    assert not sweep.run_sweep(config) and launched == []
    said = capsys.readouterr()
    assert said.err == f"{outdated.name}: other data; overwrite=true trains it again\n"
    assert "3 finished; 1 finished on other data (overwrite=true trains it again)" in said.out
    assert "3 finished, 1 outdated" in said.out
    assert sweep.run_sweep(compose_sweep(*FOUR, "overwrite=true")) and len(launched) == 4


def test_retry_runs_failed_cells_again(compose_sweep, launched):
    config = compose_sweep(*FOUR, "retry=failed")
    first, *others = (cell.run_dir for cell in plan(config))
    for run_dir in others:
        set_status(run_dir, "finished")
    set_status(first, "failed")
    assert sweep.run_sweep(config)
    assert launched == [first.name]


@pytest.mark.parametrize(
    ("asked", "status"),
    [((), "failed"), (("retry=failed",), "interrupted"), (("overwrite=true",), "interrupted")],
)
def test_a_pretraining_that_failed_begins_again_once_where_a_sweep_asks(
    compose_sweep, launched, asked, status
):
    config = compose_sweep("pretrain=mlm", "attention=softmax", "seed=0,1", *asked)
    cells = plan(config)
    (before,) = {cell.pretraining for cell in cells}
    assert before is not None
    for run_dir in (before, cells[0].run_dir):
        set_status(run_dir, "failed")
    sweep.run_sweep(config)
    assert read_status(before) == status


def test_overwrite_runs_everything_there_is_a_configuration_for(compose_sweep, launched):
    config = compose_sweep("attention=softmax,uniform,no_such", "seed=0,1", "overwrite=true")
    composed = plan(config)[:4]
    for cell in composed:
        set_status(cell.run_dir, "finished")
    assert not sweep.run_sweep(config)  # there is nothing to run for no_such
    assert launched == [cell.run_dir.name for cell in composed]


def test_a_cell_of_another_process_is_left_to_it(compose_sweep, launched, capsys):
    config = compose_sweep(*FOUR)
    first = plan(config)[0].run_dir
    set_status(first, "running")
    with process.run_lock(first):
        assert not sweep.run_sweep(config)
    assert len(launched) == 3 and "1 running in another process" in capsys.readouterr().out


def test_options_that_change_nothing_are_one_cell(compose_sweep):
    assert len(plan(compose_sweep(*FOUR, "logger=curve,other"))) == 4


def test_a_cell_that_does_not_compose_is_a_failed_row(compose_sweep, launched, tmp_path):
    assert not sweep.run_sweep(compose_sweep("attention=softmax,no_such", "seed=3"))
    assert len(launched) == 1
    (record,) = tmp_path.glob("runs/uncomposed-*/metrics.json")
    metrics = json.loads(record.read_text())
    assert metrics["status"] == "failed"
    assert (metrics["attention"], metrics["ppsbn"], metrics["seed"]) == ("no_such", "without", 3)
    assert "there is no attention=no_such; there are " in metrics["reason"]
    assert sweep.run_sweep(compose_sweep("attention=softmax", "seed=3"))
    assert not list(tmp_path.glob("runs/uncomposed-*"))  # it is no part of this sweep


def test_a_cell_whose_value_is_too_long_for_a_folder_is_a_failed_row(compose_sweep, tmp_path):
    cells = plan(compose_sweep("attention=softmax," + 400 * "x"))
    assert [cell.status for cell in cells] == ["new", "uncomposed"]
    (record,) = tmp_path.glob("runs/uncomposed-*/metrics.json")
    assert json.loads(record.read_text())["attention"] == 400 * "x"


def test_a_sweep_over_nothing_is_refused(compose_sweep):
    with pytest.raises(ValueError, match=r"seed=range\(0,0\) has no values"):
        plan(compose_sweep("seed=range(0,0)"))


def test_rows_of_a_call_that_is_still_at_work_stay(compose_sweep, launched, tmp_path):
    *_, cell = plan(compose_sweep("attention=softmax,no_such", "seed=3"))
    assert cell.status == "uncomposed"
    assert not sweep.run_sweep(compose_sweep("attention=softmax,nor_this", "seed=3"))
    assert len(list(tmp_path.glob("runs/uncomposed-*"))) == 2
    cell.lock.release()  # as its process does in the end
    plan(compose_sweep("attention=softmax,nor_this", "seed=3"))
    (record,) = tmp_path.glob("runs/uncomposed-*")
    assert "nor_this" in record.name


def test_the_row_of_a_call_that_is_still_at_work_is_left_to_it(compose_sweep, tmp_path):
    *_, cell = plan(compose_sweep("attention=softmax,no_such"))
    record = cell.run_dir / "metrics.json"
    before = record.read_text()
    *_, same = plan(compose_sweep("attention=softmax,no_such"))
    assert (same.run_dir, same.status, same.lock) == (cell.run_dir, "uncomposed", None)
    assert record.read_text() == before


def test_each_reason_of_a_row_stands_there_once(compose_sweep, monkeypatch):
    def refuse(config, loader, overrides):
        if "attention=softmax" in overrides:
            return compose_job(config, loader, overrides)
        raise ValueError("seed is -1" if "logger=third" in overrides else "seed is -10; why")

    compose_job = planning.compose_job
    monkeypatch.setattr(planning, "compose_job", refuse)
    config = compose_sweep("attention=softmax,uniform", "logger=one,other,third")
    *_, cell = plan(config)
    reason = json.loads((cell.run_dir / "metrics.json").read_text())["reason"]
    assert reason == "seed is -10; why; seed is -1"


def test_cells_without_a_configuration_are_named_before_the_others_start(
    compose_sweep, launched, monkeypatch, capsys
):
    said = []
    run = process.run_in_process

    def listen(run_dir, **options):
        said.append(capsys.readouterr().err)
        run(run_dir, **options)

    monkeypatch.setattr(process, "run_in_process", listen)
    sweep.run_sweep(compose_sweep("attention=no_such,softmax", "seed=0,1"))
    assert len(launched) == len(said) == 2
    assert said[0].count("no valid configuration") == 2 and said[1] == ""


def test_a_sweep_of_which_nothing_composes_is_refused(compose_sweep):
    with pytest.raises(HydraException, match="no_such"):
        sweep.run_sweep(compose_sweep("attention=no_such,neither"))


def test_a_sweep_that_would_tune_nothing_is_refused(compose_sweep):
    message = "best_of names sead, which no cell has; the sweep is over seed$"
    with pytest.raises(ValueError, match=message):
        plan(compose_sweep("attention=softmax", "seed=0,1", "best_of=[sead]"))
    assert len(plan(compose_sweep("attention=softmax", "seed=0,1", "best_of=[seed]"))) == 2


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("retry=all", "retry is all; it must be null or failed"),
        ("overwrite=all", "overwrite is all; it must be true or false"),
        ("best_of=null", "best_of is null; it must be a list of options"),
        ("best_of=seed", "best_of is seed; it must be a list of options"),
    ],
)
def test_what_a_sweep_itself_cannot_have_is_refused_in_one_line(
    compose_sweep, launched, capsys, option, fault
):
    with pytest.raises(SystemExit) as stop:
        sweep.RunSweep().on_multirun_start(compose_sweep(option, "seed=0,1"))
    assert stop.value.code == 2 and launched == []
    assert capsys.readouterr().err == f"macformer-train: {fault}\n"


def test_a_launcher_that_dies_loses_no_cell(compose_sweep, launched, monkeypatch, capsys):
    config = compose_sweep(*FOUR)
    finish = process.run_in_process

    def die_at_the_second(run_dir, *, overwrite, cwd):
        if len(launched) == 1:
            raise RuntimeError("the queue is gone")
        return finish(run_dir, overwrite=overwrite, cwd=cwd)

    monkeypatch.setattr(process, "run_in_process", die_at_the_second)
    assert not sweep.run_sweep(config)
    assert "the queue is gone" in capsys.readouterr().err
    assert [cell.status for cell in plan(config)].count("finished") >= 1


@pytest.mark.parametrize(("finished", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_all_is_finished(compose_sweep, monkeypatch, finished, code):
    monkeypatch.setattr(sweep, "run_sweep", lambda config: finished)
    with pytest.raises(SystemExit) as stop:
        sweep.RunSweep().on_multirun_start(compose_sweep("seed=0,1"))
    assert stop.value.code == code


def test_a_folder_that_cannot_be_made_is_one_line(compose_sweep, launched, tmp_path, capsys):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SystemExit) as stop:
        sweep.RunSweep().on_multirun_start(compose_sweep("attention=softmax,no_such"))
    assert stop.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("macformer-train: ") and str(tmp_path / "runs") in line


@pytest.mark.slow
def test_joblib_runs_cells_at_once_and_marks_them(tmp_path, tiny):
    environment = {**os.environ, "MACFORMER_OUTPUTS": str(tmp_path / "outputs")}
    environment["MACFORMER_DATA"] = str(tmp_path / "data")
    command = [sys.executable, "-m", "macformer.train", "-m", *tiny, "hydra/launcher=joblib"]
    command += ["hydra.launcher.n_jobs=2", "seed=0,1"]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    runs = [json.loads(f.read_text()) for f in tmp_path.glob("outputs/runs/*/metrics.json")]
    assert [(run["status"], run["exclusive"]) for run in runs] == [("finished", False)] * 2
    assert "2 finished" in result.stdout
