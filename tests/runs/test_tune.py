"""A search learns from its trials, and goes on where it was stopped."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from omegaconf import OmegaConf

from macformer import tune
from macformer.record import CONFIG_NAME, describe_run, read_config, write_metrics
from macformer.runs.config import compose
from macformer.tables import make_tables

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("task=listops_short", "recipe=smoke", "attention=rmfa_exp", "sweep=search")
SPACE = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "attention.num_features": [16, 32],
    "ppsbn": ["with", "with_batch"],
}
SAMPLER = {"seed": 0, "n_startup_trials": 3}


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MACFORMER_OUTPUTS", str(tmp_path))
    return tmp_path / "search"


@pytest.fixture
def trained(monkeypatch):
    """Replace training: the accuracy is highest for 16 features, the rest does not matter."""
    cells = []

    def run(run_dir, *, overwrite):
        cfg = OmegaConf.load(run_dir / CONFIG_NAME)
        cells.append(cfg)
        accuracy = 0.9 if cfg.attention.num_features == 16 else 0.2
        metrics = {
            "schema": 1,
            "status": "finished",
            "accuracy": {"best": {"val": accuracy, "test": 0.0}},
        }
        (run_dir / "metrics.json").write_text(json.dumps(metrics))
        return True

    monkeypatch.setattr(tune, "run_in_process", run)
    return cells


def search(num_trials: int, **options) -> optuna.Study:
    options = {"space": SPACE, "sampler": SAMPLER, **options}
    return tune.search(SHARED, num_trials=num_trials, **options)


def test_trials_are_cells_within_the_space(outputs, trained):
    study = search(3)
    assert len(study.trials) == len(trained) == 3
    for cfg, trial in zip(trained, study.trials, strict=True):
        assert cfg.learning_rate == trial.params["learning_rate"]
        assert 1e-5 <= cfg.learning_rate <= 1e-1 and cfg.attention.num_features in (16, 32)
        assert cfg.choices.ppsbn == trial.params["ppsbn"]
        assert Path(cfg.paths.run_dir) == outputs / cfg.cell
        assert trial.value == (0.9 if cfg.attention.num_features == 16 else 0.2)
    assert study.best_params["attention.num_features"] == 16


def test_no_trials_are_added_to_those_on_other_data(outputs, trained, monkeypatch):
    search(2)
    search(2)
    changes = []

    def change(self, cfg, run_dir):
        changes.append(run_dir.name)
        return "other data"

    monkeypatch.setattr(tune.DataNow, "change", change)
    with pytest.raises(tune.SearchError, match=f"{trained[0].cell}: other data; sweep=<name>"):
        search(3)
    assert changes == [trained[0].cell] and len(trained) == 2


def test_a_stopped_search_repeats_the_trial_it_was_in_and_no_other(outputs, trained, monkeypatch):
    finish = tune.run_in_process

    def stop_in_the_third(run_dir, *, overwrite):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return finish(run_dir, overwrite=overwrite)

    with monkeypatch.context() as patch:
        patch.setattr(tune, "run_in_process", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            search(3)
    study = search(3)
    assert len(trained) == len(study.trials) == 3
    assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.COMPLETE}
    assert len({cfg.cell for cfg in trained}) == 3  # the second call drew none of the first again
    search(3)
    assert len(trained) == 3


def test_a_failed_trial_counts_and_does_not_stop_the_search(outputs, monkeypatch):
    def fail(run_dir, *, overwrite):
        (run_dir / "metrics.json").write_text(json.dumps({"schema": 1, "status": "failed"}))
        return False

    monkeypatch.setattr(tune, "run_in_process", fail)
    study = search(1)
    assert [trial.state.name for trial in study.trials] == ["FAIL"]


def test_a_trial_whose_cell_another_process_runs_stays_open(outputs, trained, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tune, "run_in_process", lambda run_dir, *, overwrite: False)
        with pytest.raises(tune.SearchError, match="trial 0 is not finished"):
            search(1)
    study = search(1)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] and len(trained) == 1


def test_values_keep_their_types_and_the_printed_command_repeats_the_trial(
    outputs, trained, capsys, tmp_path
):
    space = {
        "attention.guard": [None],
        "attention.num_features": {"low": 16, "high": 64, "step": 16},
        "+mine.note": ["true", "a, b", True],
    }
    file = tmp_path / "search.yaml"
    file.write_text(
        yaml.safe_dump({"num_trials": 4, "num_startup_trials": 4, "seed": 0, "space": space})
    )
    assert tune.main(["--config", str(file), *SHARED]) == 0
    assert {cfg.attention.guard for cfg in trained} == {None}
    features = {cfg.attention.num_features for cfg in trained}
    assert features <= {16, 32, 48, 64} and {type(n) for n in features} == {int}
    assert {cfg.mine.note for cfg in trained} <= {"true", "a, b", True}
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[0] == "macformer-train"
    assert compose(*command[1:]).identity in {cfg.identity for cfg in trained}


def test_a_search_makes_the_table_of_its_best_trial_and_one_of_all_on_request(outputs, monkeypatch):
    rates = {"examples_per_second": 1.0, "tokens_per_second": 1.0, "positions_per_second": 1.0}
    measured = {
        "status": "finished",
        "device": "laptop",
        "num_parameters": 10,
        "majority_rate": 0.2,
        "train": {**rates, "peak_memory_gib": 1.0},
        "inference": {**rates, "peak_memory_gib": 1.0},
    }

    def run(run_dir, *, overwrite):
        cfg = read_config(run_dir)
        score = cfg.attention.num_features / 100 + cfg.learning_rate
        accuracy = {name: {"step": 9, "val": score, "test": score} for name in ("best", "last")}
        write_metrics(run_dir, {**describe_run(cfg), **measured, "accuracy": accuracy})
        return True

    monkeypatch.setattr(tune, "run_in_process", run)
    space = {"attention.num_features": [16, 32], "learning_rate": [0.001, 0.01]}
    study = search(8, space=space)
    settings = {tuple(sorted(trial.params.items())) for trial in study.trials}
    assert len(settings) > 2
    (best,) = [n for n in (outputs / "table.md").read_text().splitlines() if "| rmfa_exp" in n][:1]
    assert f"| {max(f + 100 * r for (_, f), (_, r) in settings):.2f} |" in best
    make_tables([outputs], best_of=[])
    lines = [line for line in (outputs / "table.md").read_text().splitlines() if "rmfa_exp" in line]
    for (_, features), (_, rate) in settings:
        shown = [n for n in lines if f"num_features={features}" in n and f"rate={rate}" in n]
        assert len(shown) == 2 and f"{features + 100 * rate:.2f}" in shown[0], lines  # and its cost


def test_a_space_that_does_not_suit_the_options_is_one_line(outputs, capsys):
    assert tune.main(["task=listops_short", "attention=softmax"]) == 2
    error = capsys.readouterr().err
    assert "num_features" in error and len(error.splitlines()) == 1
    assert not list(outputs.parent.glob("*/*/metrics.json"))


@pytest.mark.parametrize("option", ["overwrite=true", "retry=failed"])
def test_a_search_begins_no_trial_anew(outputs, option):
    name = option.partition("=")[0]
    with pytest.raises(tune.SearchError, match=f"{name} is no option of a search; sweep=<name>"):
        tune.search([option], space=SPACE, sampler=SAMPLER, num_trials=1)


def test_a_space_without_the_recipe_s_own_value_is_named(outputs, trained, capsys):
    """Of another schedule, say, whose rates are of another size."""
    search(1, space={"learning_rate": {"low": 1e-6, "high": 2e-6}})
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "without a search" in line]
    assert line.endswith("outside 1e-06 to 2e-06; --config names a file with another space")
    search(1, space={"learning_rate": {"low": 1e-6, "high": 1.0}})
    assert "without a search" not in capsys.readouterr().err


def test_every_value_of_a_space_is_tried_before_the_first_trial(outputs, trained):
    with pytest.raises(tune.SearchError, match="wiht"):
        search(1, space={"ppsbn": ["with", "wiht"]})
    assert not trained


@pytest.mark.parametrize("spec", [{"low": 2.0, "high": 1.0}, {"lowest": 1}, "1,2"])
def test_a_range_that_is_none_is_refused(outputs, spec):
    with pytest.raises(tune.SearchError, match="learning_rate"):
        search(1, space={"learning_rate": spec})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 0\nspace: {}\nnum_trials: 1", "has no num_startup_trials"),
        ("a: [1", "is not YAML"),
        ("- 1", "holds no options"),
    ],
)
def test_a_file_that_is_no_search_is_one_line(tmp_path, capsys, text, message):
    (tmp_path / "search.yaml").write_text(text)
    assert tune.main(["--config", str(tmp_path / "search.yaml")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


WRONG = {
    "num_trials": ["ten", 0, -1, 1.5, None, [1]],
    "num_startup_trials": [-1, "all", None],
    "seed": [-1, 2**32, "x"],
    "space": [None, [], {}, "learning_rate", 3],
    "learning_rate": [
        *(None, 1e-3, [], {}, {"low": 1e-3}, {"low": "a", "high": "b"}, {"low": 2.0, "high": 1.0}),
        *({"low": -1.0, "high": 1.0, "log": True}, {"low": 1e-3, "high": 1e-2, "steps": 2}),
        *({"low": 1e-3, "high": float("nan")}, {"low": True, "high": 3}, [[1e-3]], [float("nan")]),
    ],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in WRONG.items() for v in values])
def test_a_wrong_value_is_refused_in_one_line_before_any_trial(
    outputs, trained, capsys, tmp_path, key, value
):
    good = {"num_trials": 1, "num_startup_trials": 1, "seed": 0, "space": {"learning_rate": [0.1]}}
    wrong = {key: value} if key in good else {"space": {key: value}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(good | wrong))
    assert tune.main(["--config", str(tmp_path / "search.yaml"), *SHARED]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and key in error and not trained
    assert not outputs.exists()


def test_no_trial_is_run_where_none_is_asked_for(outputs, trained):
    assert tune.main([*SHARED, "--num-trials", "0"]) == 2
    assert not trained


def test_trials_that_would_share_a_folder_are_refused(outputs, trained):
    with pytest.raises(tune.SearchError, match=r"paths\.run_dir is .* a folder of its own"):
        overrides = [*SHARED, f"paths.run_dir={outputs / 'x'}"]
        tune.search(overrides, space=SPACE, sampler=SAMPLER, num_trials=2)
    assert not trained


def test_an_interruption_between_trials_is_one_line(monkeypatch, capsys):
    def press(*overrides, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "compose", press)
    assert tune.main([*SHARED]) == 130
    assert capsys.readouterr().err == "macformer-tune: interrupted\n"


def test_two_searches_do_not_share_a_folder(outputs, trained):
    outputs.mkdir()
    with (
        tune.FileLock(outputs / ".tune.lock"),
        pytest.raises(tune.SearchError, match="another search is at work"),
    ):
        search(1)


@pytest.mark.parametrize("file", ["configs/tune.yaml", "scripts/wandb_sweep.yaml"])
def test_both_ends_of_a_shipped_space_compose(file):
    spec = yaml.safe_load((ROOT / file).read_text())
    space = spec.get("space") or spec["parameters"]
    ends = {name: ends_of(axis) for name, axis in space.items()}
    fixed = [] if "parameters" in spec else ["task=listops", "attention=rmfa_exp"]
    for end, learning_rate in ((0, 1e-5), (-1, 1e-2)):
        options = [f"{name}={values[end]}" for name, values in ends.items()]
        assert compose(*fixed, *options).optimizer.lr == learning_rate


def ends_of(axis):
    """Return the values of an axis of Optuna's space or of Weights & Biases'."""
    if isinstance(axis, list):
        return axis
    if "value" in axis:
        return [axis["value"]]
    low, high = ("low", "high") if "low" in axis else ("min", "max")
    return axis.get("values") or [axis[low], axis[high]]


@pytest.mark.slow
def test_a_killed_search_goes_on_with_its_trial(tmp_path, tiny, killer):
    (tmp_path / "search.yaml").write_text(
        yaml.safe_dump({"num_trials": 2, "num_startup_trials": 1, "seed": 0, "space": SPACE})
    )
    environment = {**os.environ, "MACFORMER_OUTPUTS": str(tmp_path / "outputs")}
    environment["MACFORMER_DATA"] = str(tmp_path / "data")
    options = [*tiny, "attention=rmfa_exp", killer(step=6, whom="parent")]
    command = [sys.executable, "-m", "macformer.tune", *options, "--config", "search.yaml"]

    def call() -> subprocess.CompletedProcess:
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    assert call().returncode == -9
    (interrupted,) = tmp_path.glob("outputs/search/*/metrics.json")
    harmless = "from pytorch_lightning.callbacks import Callback\n"
    harmless += "class KillBefore(Callback):\n    def __init__(self, **options): pass\n"
    (tmp_path / "killer" / "killer.py").write_text(harmless)
    result = call()
    assert result.returncode == 0, result.stderr
    runs = list(tmp_path.glob("outputs/search/*/metrics.json"))
    assert len(runs) == 2 and interrupted in runs
    assert {json.loads(run.read_text())["status"] for run in runs} == {"finished"}
    assert "trial 0: " in result.stdout and "best of 2" in result.stdout
