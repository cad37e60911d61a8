"""SIGKILL at any place loses no more than the steps since the last checkpoint.

``test_stopped_cell.py`` has the quick variant, in one process.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
import torch

from macformer.runs import cell
from macformer.runs.process import is_running, run_in_process

# random features, running statistics and dropout
OPTIONS = ("attention=rmfa_exp", "attention.num_features=16", "ppsbn=with_batch")


def read_metrics(run_dir: Path):
    return json.loads((run_dir / "metrics.json").read_text())


def assert_same_end(one: Path, other: Path) -> None:
    """Compare weights, features, statistics, optimiser and accuracies bit for bit."""
    first, second = (
        torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
        for run_dir in (one, other)
    )
    assert first["global_step"] == second["global_step"] == 8
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)
    assert first["lr_schedulers"] == second["lr_schedulers"]
    assert read_metrics(one)["accuracy"] == read_metrics(other)["accuracy"]
    assert (one / "metrics.csv").exists() and (other / "metrics.csv").exists()


@pytest.mark.slow
def test_a_killed_cell_ends_with_the_bits_of_one_that_was_not(make_run, killer):
    _, whole = make_run(*OPTIONS, folder="whole")
    assert cell.run(whole)
    _, parted = make_run(*OPTIONS, killer(step=6), folder="parted")
    assert not run_in_process(parted, overwrite=False)
    metrics = read_metrics(parted)
    assert (metrics["status"], metrics["reason"]) == ("interrupted", "stopped by SIGKILL")
    state = torch.load(parted / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4

    make_run(*OPTIONS, folder="parted")
    assert cell.run(parted)
    assert_same_end(whole, parted)
    assert read_metrics(parted)["reason"] is None


@pytest.mark.slow
@pytest.mark.parametrize("signum", [SIGTERM, SIGKILL])
def test_a_sweep_that_is_ended_alone_takes_the_cells_of_its_workers_along(tmp_path, tiny, signum):
    environment = {**os.environ, "MACFORMER_OUTPUTS": str(tmp_path / "outputs")}
    environment["MACFORMER_DATA"] = str(tmp_path / "data")
    command = [sys.executable, "-m", "macformer.train", "-m", *tiny, "max_steps=100000"]
    command += ["seed=range(6)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep = subprocess.Popen(command, env=environment, cwd=tmp_path)

    def running() -> list[Path]:
        return [f.parent for f in tmp_path.glob("outputs/runs/*/.lock") if is_running(f.parent)]

    try:
        wait_until(lambda: len(running()) == 2)
        sweep.send_signal(signum)
        assert sweep.wait(20) == -signum
        wait_until(lambda: not running())
        time.sleep(5)  # in which a worker would begin the next cell that it was given before
        assert not running()
    finally:
        sweep.kill()
    statuses = [json.loads(f.read_text()) for f in tmp_path.glob("outputs/runs/*/metrics.json")]
    assert [run["status"] for run in statuses] == 2 * ["interrupted"]


def wait_until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_sweep_is_completed_by_the_next_call(tmp_path, tiny, killer):
    def call(*overrides: str, folder: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "MACFORMER_OUTPUTS": str(tmp_path / folder)}
        environment["MACFORMER_DATA"] = str(tmp_path / "data")
        command = [sys.executable, "-m", "macformer.train", "-m", *tiny, *OPTIONS, "seed=0,1"]
        return subprocess.run(
            [*command, *overrides], env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    assert call(folder="whole").returncode == 0
    assert call(killer(step=6, whom="parent"), folder="parted").returncode == -9
    (interrupted,) = tmp_path.glob("parted/runs/*/metrics.json")  # its cell went down with it
    assert json.loads(interrupted.read_text())["status"] == "running"

    result = call(folder="parted")
    assert result.returncode == 0, result.stderr
    assert "2 cells; 0 finished; 2 to run, 1 of them resumed" in result.stdout
    whole, parted = (sorted((tmp_path / f).glob("runs/*/")) for f in ("whole", "parted"))
    assert len(whole) == 2 and [p.name for p in whole] == [p.name for p in parted]
    for one, other in zip(whole, parted, strict=True):
        assert_same_end(one, other)
