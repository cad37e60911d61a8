"""A sweep on a running Slurm, one node of it being enough; ``make test-slurm`` runs it.

A job that dies is noticed through ``sacct``. A Slurm without accounting leaves submitit waiting.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not shutil.which("sbatch"), reason="there is no sbatch on PATH"),
    pytest.mark.skipif(not shutil.which("sacct"), reason="there is no sacct on PATH"),
]

LAUNCHER = (
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.timeout_min=10",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
)


@pytest.fixture
def sweep(tmp_path: Path, tiny):
    """Return a function that calls a sweep of some options over two seeds."""

    def call(*overrides: str, launcher=LAUNCHER) -> subprocess.CompletedProcess:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["MACFORMER_OUTPUTS"] = str(tmp_path / "outputs")
        environment["MACFORMER_DATA"] = str(tmp_path / "data")
        command = [sys.executable, "-m", "macformer.train", "-m", *tiny, *launcher, *overrides]
        result = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900
        )
        print(result.stdout, result.stderr)
        return result

    return call


def statuses(tmp_path: Path) -> list[str]:
    files = tmp_path.glob("outputs/runs/*/metrics.json")
    return sorted(json.loads(file.read_text())["status"] for file in files)


def test_cells_are_jobs_and_a_failed_one_is_a_row(sweep, tmp_path):
    options = ("attention=softmax,rmfa_inv", "attention.guard=1.5", "seed=0,1")
    result = sweep(*options)  # softmax has no guard: it does not compose
    assert result.returncode == 1
    assert "4 cells; 0 finished; 2 without a valid configuration; 2 to run" in result.stdout
    assert statuses(tmp_path) == ["failed"] * 4
    reasons = [
        json.loads(file.read_text())["reason"]
        for file in tmp_path.glob("outputs/runs/listops_short-rmfa_inv-*/metrics.json")
    ]
    assert len(reasons) == 2 and all("bounded by 1.5" in reason for reason in reasons)

    result = sweep("attention=softmax,uniform", "seed=0,1")
    assert result.returncode == 0
    assert statuses(tmp_path) == ["failed"] * 2 + ["finished"] * 4

    result = sweep("attention=softmax,uniform", "seed=0,1")
    assert "4 cells; 4 finished; 0 to run" in result.stdout


def test_a_job_that_dies_is_resumed_by_the_next_call(sweep, tmp_path, killer):
    result = sweep("seed=0,1", killer(step=6, whom="parent"))
    assert result.returncode == 1 and "launcher: " in result.stderr
    assert statuses(tmp_path) == ["running"] * 2
    result = sweep("seed=0,1")
    assert result.returncode == 0
    assert "2 cells; 0 finished; 2 to run, 2 of them resumed" in result.stdout
    assert statuses(tmp_path) == ["finished"] * 2


def test_two_tasks_of_a_job_are_two_ranks_of_one_run(sweep, tmp_path):
    ranks = ("trainer.devices=2", "trainer.strategy=ddp", "hydra.launcher.tasks_per_node=2")
    result = sweep("seed=0,1", *ranks)
    assert result.returncode == 0
    assert statuses(tmp_path) == ["finished"] * 2
