"""A study measures what is missing, once, and draws from its rows alone."""

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from macformer.runs.allowed import OptionError, whole
from macformer.studies.runner import ROWS, StudyError, render_study, run_study, settings_of

SQUARES = """
import pandas as pd
from matplotlib.figure import Figure

measured = []

def points(cfg):
    return [{"x": x, "seed": seed} for x in cfg.grid.x for seed in cfg.seeds]

meanwhile = []

def measure(point, cfg):
    if meanwhile:
        meanwhile.pop()()
    if point["x"] == cfg.grid.get("fails_at"):
        raise RuntimeError("no power")
    if point["x"] == cfg.grid.get("refused_at"):
        raise ValueError("x is odd")
    if point["x"] == cfg.grid.get("stops_at"):
        raise KeyboardInterrupt
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


@pytest.mark.parametrize("change", [{"threads": 2}, {"device": "cpu:0"}], ids=str)
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
    with pytest.raises(KeyboardInterrupt):
        run_study(config([2, 3, 5], [0], stops_at=5), tmp_path)
    assert len(pd.read_csv(tmp_path / ROWS)) == 4
    run_study(config([2, 3, 5], [0]), tmp_path)
    assert squares == [(2, 0), (3, 0), (5, 0)]


def test_a_point_that_fails_leaves_the_others(squares, tmp_path):
    message = "1 of 3 points failed.*the first: x 3, seed 0: RuntimeError: no power"
    with pytest.raises(StudyError, match=message):
        run_study(config([2, 3, 5], [0], fails_at=3), tmp_path)
    assert squares == [(2, 0), (5, 0)] and (tmp_path / "plot.png").exists()
    run_study(config([2, 3, 5], [0]), tmp_path)
    assert squares == [(2, 0), (5, 0), (3, 0)]


def test_a_value_that_one_point_cannot_have_leaves_the_others(squares, tmp_path):
    with pytest.raises(StudyError, match=r"the first: x 3, seed 0: x is odd$"):
        run_study(config([2, 3, 5], [0, 1], refused_at=3), tmp_path)
    assert squares == [(2, 0), (2, 1), (5, 0), (5, 1)]


def test_a_study_without_points_says_so(squares, tmp_path):
    for run in (run_study, render_study):
        with pytest.raises(StudyError, match="study=squares has no points: a list is empty"):
            run(config([2], []), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_study_may_say_which_values_its_options_have(squares, tmp_path, monkeypatch):
    study = __import__("squares")
    monkeypatch.setattr(study, "ALLOWED", {"study.settings.offset": whole(0)}, raising=False)
    with pytest.raises(
        OptionError, match=r"study\.settings\.offset is -1; it must be a whole number"
    ):
        run_study(config([2], [0], offset=-1), tmp_path)


def test_two_calls_may_add_to_one_study(squares, tmp_path):
    """The second begins and ends while the first is at a point, and has that point, too."""
    study = __import__("squares")
    study.meanwhile.append(lambda: run_study(config([2, 3], [0, 1]), tmp_path))
    run_study(config([2, 5], [0]), tmp_path)
    frame = pd.read_csv(tmp_path / ROWS)
    points = [tuple(row) for row in frame[["x", "seed"]].drop_duplicates().to_numpy()]
    assert sorted(points) == [(2, 0), (2, 1), (3, 0), (3, 1), (5, 0)]
    assert len(frame) == 2 * len(points)


def test_rows_of_other_settings_are_not_mixed(squares, tmp_path):
    run_study(config([2], [0]), tmp_path)
    other = config([2], [0], offset=1)
    with pytest.raises(StudyError, match="other settings"):
        run_study(other, tmp_path)
    other.overwrite = True
    with pytest.raises(KeyboardInterrupt):  # before it has anything to put in their place
        run_study(OmegaConf.merge(other, {"grid": {"stops_at": 2}}), tmp_path)
    assert pd.read_csv(tmp_path / ROWS)["y"].max() == 4
    run_study(other, tmp_path)
    assert pd.read_csv(tmp_path / ROWS)["y"].max() == 5


def test_rows_of_one_task_know_nothing_of_the_options_of_others():
    def of(task, **tasks):
        cfg = config([2], [0])
        cfg.study.settings.tasks = tasks
        return settings_of({"task": task}, cfg)

    assert of("a", a={"x": 1}) == of("a", a={"x": 1}, b={"x": 2})
    assert of("a", a={"x": 1}) != of("a", a={"x": 2})


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
    assert render_study(config([2, 3], [0]), tmp_path) == files
    assert {file: file.read_bytes() for file in files} == drawn
    assert squares == []


def test_only_the_points_that_are_asked_for_are_drawn(squares, tmp_path):
    """Rows of another number of threads or of a smaller grid would enter the same means."""
    run_study(config([2, 3], [0]), tmp_path)
    run_study(config([3], [1]), tmp_path)
    run_study(OmegaConf.merge(config([3], [2]), {"threads": 2}), tmp_path)
    assert len(pd.read_csv(tmp_path / ROWS)) == 8

    def drawn(x, **options) -> tuple[list[str], str]:
        render_study(OmegaConf.merge(config(x, [7]), options), tmp_path)
        first, *lines = (tmp_path / "table.md").read_text().splitlines()
        return [line.split("|")[1].strip() for line in lines[3:]], first.partition(";")[0]

    assert drawn([3]) == (["3"], "2 seeds")
    assert drawn([2, 3]) == (["2", "3"], "2 seeds")
    assert drawn([3], threads=2) == (["3"], "1 seed")
    with pytest.raises(StudyError, match="no rows of these points"):
        render_study(config([11], [0]), tmp_path)


def test_what_was_not_measured_is_not_drawn(squares, tmp_path):
    with pytest.raises(StudyError, match="without render=true"):
        render_study(config([2], [0]), tmp_path)


WRONG = [
    *(("size", value) for value in ("huge", None, [1])),
    *(("seeds", value) for value in ("all", 1, [-1], ["a"], None)),
    *(("device", value) for value in ("gpu", 0, None)),
    *(("threads", value) for value in (0, "many", 1.5, None)),
    *(("overwrite", value) for value in ("maybe", 1)),
    *(("render", value) for value in ("maybe", 1)),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
@pytest.mark.parametrize("run", [run_study, render_study])
def test_a_wrong_value_is_refused_in_one_line_before_any_work(squares, tmp_path, key, value, run):
    cfg = OmegaConf.merge(config([2], [0]), {key: value})
    with pytest.raises(OptionError, match=f"^{key} is .*; it must be [^\n]*$"):
        run(cfg, tmp_path / "study")
    assert not squares and not (tmp_path / "study").exists()


def test_a_device_or_a_module_that_is_not_there_is_one_line(squares, tmp_path):
    cfg = config([2], [0])
    for change, message in (
        ({"device": "cuda:99"}, "device is cuda:99, which cannot be used here"),
        ({"study": {"module": "circles"}}, "study.module is circles: No module named 'circles'"),
    ):
        with pytest.raises(StudyError, match=message):
            run_study(OmegaConf.merge(cfg, change), tmp_path / "study")
    assert not squares and not (tmp_path / "study").exists()
