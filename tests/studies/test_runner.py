"""A study measures what is missing, once, and draws from its rows alone."""

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from macformer.studies.runner import ROWS, StudyError, render_study, run_study

SQUARES = """
import pandas as pd
from matplotlib.figure import Figure

measured = []

def points(cfg):
    return [{"x": x, "seed": seed} for x in cfg.grid.x for seed in cfg.seeds]

def measure(point, cfg):
    if point["x"] == cfg.grid.get("fails_at"):
        raise RuntimeError("no power")
    measured.append((point["x"], point["seed"]))
    yield {"half": "upper", "y": point["x"] ** 2 + cfg.study.settings.offset}
    yield {"half": "lower", "y": None}

def table(frame):
    return frame.groupby("x", as_index=False)["y"].mean()

def plot(frame):
    figure = Figure()
    figure.subplots().plot(frame["x"], frame["y"])
    return figure
"""


@pytest.fixture
def squares(tmp_path, monkeypatch):
    """Import a study from outside the package, and return what it has measured."""
    (tmp_path / "squares.py").write_text(SQUARES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "squares", raising=False)
    return __import__("squares").measured


def config(x, seeds, *, offset=0, **options) -> DictConfig:
    grid = {"x": x, "seeds": seeds, **options}
    study = {
        "name": "squares",
        "module": "squares",
        "settings": {"offset": offset},
        "sizes": {"smoke": grid},
    }
    cfg = {"size": "smoke", "study": study, "grid": grid, "seeds": seeds, "device": "cpu"}
    return OmegaConf.create({**cfg, "threads": 1, "overwrite": False})


@pytest.mark.parametrize("change", [{"threads": 2}, {"device": "meta"}], ids=str)
def test_another_device_or_number_of_threads_is_measured_anew(squares, tmp_path, change):
    run_study(config([2], [0]), tmp_path)
    run_study(OmegaConf.merge(config([2], [0]), change), tmp_path)
    assert squares == [(2, 0), (2, 0)]


def test_only_missing_points_are_measured(squares, tmp_path):
    run_study(config([2, 3], [0]), tmp_path)
    run_study(config([3, 5, 2], [0, 1]), tmp_path)
    assert squares == [(2, 0), (3, 0), (3, 1), (5, 0), (5, 1), (2, 1)]
    frame = pd.read_csv(tmp_path / ROWS)
    upper = frame[frame["half"] == "upper"]
    assert dict(zip(upper["x"], upper["y"], strict=True)) == {2: 4, 3: 9, 5: 25}
    assert len(frame) == 12


def test_an_interrupted_study_goes_on(squares, tmp_path):
    with pytest.raises(RuntimeError, match="no power"):
        run_study(config([2, 3, 5], [0], fails_at=5), tmp_path)
    assert len(pd.read_csv(tmp_path / ROWS)) == 4
    run_study(config([2, 3, 5], [0]), tmp_path)
    assert squares == [(2, 0), (3, 0), (5, 0)]


def test_rows_of_other_settings_are_not_mixed(squares, tmp_path):
    run_study(config([2], [0]), tmp_path)
    other = config([2], [0], offset=1)
    with pytest.raises(StudyError, match="other settings"):
        run_study(other, tmp_path)
    other.overwrite = True
    run_study(other, tmp_path)
    assert pd.read_csv(tmp_path / ROWS)["y"].max() == 5


def test_rows_say_where_they_come_from(squares, tmp_path):
    run_study(config([2], [7]), tmp_path)
    row = pd.read_csv(tmp_path / ROWS).iloc[0]
    assert row["seed"] == 7
    assert not row[["device", "torch", "macformer"]].isna().any()
    assert "1 seed;" in (tmp_path / "table.md").read_text()


def test_table_and_plot_come_from_the_rows_alone(squares, tmp_path):
    files = run_study(config([2, 3], [0]), tmp_path)
    drawn = {file: file.read_bytes() for file in files}
    for file in files:
        if file.name != ROWS:
            file.unlink()
    squares.clear()
    assert render_study(config([11], [5]), tmp_path) == files
    assert {file: file.read_bytes() for file in files} == drawn
    assert squares == []


def test_mistakes_are_named(squares, tmp_path):
    cfg = config([2], [0])
    with pytest.raises(StudyError, match="without render=true"):
        render_study(cfg, tmp_path)
    cfg.size = "huge"
    with pytest.raises(StudyError, match=r"huge is unknown; squares has \['smoke'\]"):
        run_study(cfg, tmp_path)
