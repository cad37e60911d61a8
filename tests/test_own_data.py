"""A user's files are tasks like any other, for every command."""

import random
import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import balanced_accuracy_score, f1_score

from macformer.record import CONFIG_NAME, read_metrics, read_predictions
from macformer.runs.cell import run
from macformer.runs.config import compose
from macformer.tables.decision import read_rates
from tasks.describe import cli
from tasks.describe.example import write_machines, write_sessions

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
SMALL = (
    "recipe=smoke",
    "logger=curve",
    "batch_size=8",
    "max_steps=4",
    "eval_interval=2",
    "warmup_batches=1",
    "log_interval=2",
    "test_batches=null",
)


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


def finished(tmp_path: Path, folder: Path, *options: str) -> tuple[dict, dict]:
    """Run a cell here; return its metrics and its answers."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    paths = (f"paths.run_dir={run_dir}", f"paths.data_dir={tmp_path / 'data'}")
    cfg = compose("task=logs", *SMALL, *paths, *options, config_dirs=[folder])
    OmegaConf.save(
        OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)), run_dir / CONFIG_NAME
    )
    assert run(run_dir)
    metrics, answers = read_metrics(run_dir), read_predictions(run_dir)
    assert metrics is not None and answers is not None
    return metrics, answers


def test_a_table_that_was_described_is_trained_and_scored_by_class(tmp_path, folder, capsys):
    rng = random.Random(0)
    rows = [f"{''.join(rng.choices('abcd ', k=20))}x,{rng.choice('AAAB')}" for _ in range(200)]
    (tmp_path / "logs.csv").write_text("\n".join(["message,severity", *rows]))
    call = [str(tmp_path / "logs.csv"), "--text", "message", "--label", "severity", "--no-floors"]
    assert cli.main(call) == 0
    (folder / "task" / "logs.yaml").write_text(capsys.readouterr().out)
    metrics, answers = finished(tmp_path, folder, "objective=balanced", "attention=rmfa_exp")
    for rule, scores in metrics["scores"].items():
        truth, answer = answers["label"], answers[f"{rule}_prediction"]
        expected = {
            "macro_f1": f1_score(truth, answer, average="macro"),
            "balanced_accuracy": balanced_accuracy_score(truth, answer),
        }
        assert scores["test"] == pytest.approx(expected, abs=1e-6)
        assert scores["val"].keys() == expected.keys()


SERIES = """
defaults: [_series, _self_]
name: logs
path: {path}
classes: ["0", "1"]
num_classes: 2
patch: 2
max_len: 6
missing: indicator
channel_mean: {mean}
channel_std: {std}
"""


def test_series_with_gaps_are_trained_on(tmp_path, folder):
    rng = np.random.default_rng(0)
    x = rng.normal(50, 4, (60, 12, 3)).astype(np.float32)
    x[::7, 3:5, 1] = np.nan
    x[::4, 9:] = np.nan  # shorter ones
    path = tmp_path / "machines.npz"
    np.savez(path, x=x, y=np.arange(60) % 2, split=np.repeat(["train", "val", "test"], 20))
    statistics = {"mean": np.nanmean(x[:20], (0, 1)), "std": np.nanstd(x[:20], (0, 1))}
    written = {name: values.tolist() for name, values in statistics.items()}
    (folder / "task" / "logs.yaml").write_text(SERIES.format(path=path, **written))
    metrics, _ = finished(tmp_path, folder, "task.split=split")
    assert metrics["num_examples"] == {"train": 20, "validation": 20, "test": 20}
    assert np.isfinite(metrics["train"]["loss"])


GUIDE = Path(__file__).parents[1] / "docs" / "pages" / "own_data.md"


def commands_of_the_guide() -> list[list[str]]:
    blocks = re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_guide_can_be_followed_from_an_empty_folder(tmp_path, monkeypatch, capsys):
    """On smaller examples; the first cell of each sweep is composed, and not trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "task").mkdir(parents=True)
    write_sessions(Path("logs.csv"), num_rows=300)
    write_machines(Path("machines.csv"), num_machines=12, num_steps=1025)
    monkeypatch.setattr(cli, "write_page", lambda *_, **__: None)  # draws, which takes seconds
    followed = Counter()
    for command, *arguments in commands_of_the_guide():
        followed[command] += 1
        if command == "macformer-describe" and "--example" not in arguments:
            *arguments, arrow, target = arguments
            assert arrow == ">" and cli.main([*arguments, "--no-floors"]) == 0
            Path(target).write_text(capsys.readouterr().out)
        elif command == "macformer-train":
            options = [word for word in arguments if word not in ("-m", "--config-dir", "my")]
            first = [option.partition(",")[0] for option in options]
            assert compose(*first, config_dirs=[Path("my")]).cell
        elif command == "macformer-tables" and "--decide" in arguments:
            assert read_rates(arguments[-1]).is_given("hour")
            followed["--decide"] += 1
    assert followed["macformer-describe"] == 4 and followed["macformer-train"] == 3
    assert followed["macformer-tables"] == 2 and followed["--decide"] == 1
