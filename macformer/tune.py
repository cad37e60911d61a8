"""Search hyperparameters with Optuna: each trial is a cell, scored by its best validation.

    macformer-tune task=listops attention=rmfa_exp [--num-trials 50] [--config my_search.yaml]

It prints the command that trains with the best values. The search space is configs/tune.yaml, or a
copy of it.
"""

import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import configs
from macformer.record import read_metrics, read_status, write_config
from macformer.runs.allowed import COUNT, SEED, Allowed, check, read_settings, whole
from macformer.runs.config import ConfigError, compose
from macformer.runs.data_now import DataNow
from macformer.runs.help import make_parser
from macformer.runs.hydra_messages import one_line
from macformer.runs.overrides import write_override
from macformer.runs.process import run_in_process
from macformer.runs.sweep import show_tables
from macformer.runs.unread import readers_may_go

if TYPE_CHECKING:
    import optuna

DEFAULT_CONFIG = Path(configs.__path__[0]) / "tune.yaml"
JOURNAL_NAME = "journal.log"
SPACE = "a mapping of one option at least, each to a list of values or {low, high, log, step}"
ALLOWED = {
    "num_trials": COUNT,
    "num_startup_trials": whole(0),
    "seed": SEED,
    "space": Allowed(lambda value: OmegaConf.is_dict(value) and len(value) > 0, SPACE),
}


class SearchError(ValueError):
    """A search that cannot begin."""


def search(
    overrides: Sequence[str],
    *,
    space: dict[str, Any],
    sampler: dict[str, Any],
    num_trials: int,
    config_dirs: Sequence[Path] = (),
) -> "optuna.Study":
    """Run trials until a study has as many as asked for, make their tables, and return it.

    The study lives in a journal beside the runs: a search that was killed goes on with the trial
    that it was in, which itself goes on from its last checkpoint.

    Args:
        overrides: Options of ``macformer-train`` that all trials share.
        space: For each further option its values, or ``low``, ``high`` and ``log`` or ``step`` of
            an interval, of whole numbers where both ends are.
        sampler: Arguments of ``optuna.samplers.TPESampler``.
        config_dirs: Folders of the user's own configurations.

    Raises:
        SearchError: If the space does not suit the options, trials would share one folder, another
            search has theirs, or another process runs a trial's cell.
    """
    try:
        import optuna
    except ImportError:
        raise SearchError("Optuna is not installed; it comes with the extra optuna") from None
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    _check_overrides(overrides)
    distributions = {name: _distribution(name, spec) for name, spec in space.items()}
    tuned = write_override("best_of", [name.lstrip("+") for name in space])
    compose_trial = partial(_compose_trial, [tuned, *overrides], config_dirs=config_dirs)
    first_values = {name: _first_value(spec) for name, spec in space.items()}
    folder = _sweep_folder(compose_trial(first_values))
    _compare_with_own(compose_trial({}), space)
    for name, spec in space.items():  # or a trial would find out, hours later
        for value in _further_values(spec):
            compose_trial(first_values | {name: value})
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with FileLock(folder / ".tune.lock", timeout=0):
            study = optuna.create_study(
                storage=optuna.storages.JournalStorage(
                    JournalFileBackend(str(folder / JOURNAL_NAME))
                ),
                study_name=json.dumps([list(overrides), space]),
                direction="maximize",
                load_if_exists=True,
            )
            # a seed of its own for each call, or the second would draw what the first drew
            seed = sampler["seed"] + len(study.trials)
            study.sampler = optuna.samplers.TPESampler(**{**sampler, "seed": seed})
            for trial in study.get_trials(states=(TrialState.COMPLETE,))[:1]:
                _check_data(compose_trial(trial.params))
            interrupted = study.get_trials(states=(TrialState.RUNNING,))
            while len(study.trials) - len(interrupted) < num_trials or interrupted:
                trial = interrupted.pop(0) if interrupted else study.ask(distributions)
                _run_trial(study, trial, compose_trial)
    except Timeout:
        raise SearchError(f"another search is at work in {folder}") from None
    if study.trials:
        show_tables(folder)
    return study


def _sweep_folder(trial: DictConfig) -> Path:
    """Return the folder that trials have theirs in.

    Raises:
        SearchError: If all trials have the same.
    """
    run_dir = Path(trial.paths.run_dir)
    if trial.identity not in run_dir.name:
        raise SearchError(
            f"paths.run_dir is {run_dir}; each trial has a folder of its own, so leave it out, or "
            "end it in ${cell}"
        )
    return run_dir.parent


def _compose_trial(
    overrides: Sequence[str], params: dict[str, Any], *, config_dirs: Sequence[Path]
) -> DictConfig:
    try:
        cfg = compose(*overrides, *_options(params), config_dirs=config_dirs)
        _ = cfg.paths.run_dir  # what only shows when the run is named, shows here
        return cfg
    except (ConfigError, OmegaConfBaseException) as error:
        raise SearchError(one_line(error)) from error


def _check_overrides(overrides: Sequence[str]) -> None:
    """Refuse options that begin a run anew: a search goes on with each of its trials."""
    for override in overrides:
        name = override.partition("=")[0].lstrip("+")
        if name in ("overwrite", "retry"):
            raise SearchError(f"{name} is no option of a search; sweep=<name> begins another one")


def _compare_with_own(cfg: DictConfig, space: dict[str, Any]) -> None:
    """Warn of intervals without the value that an option has otherwise, as the recipe's."""
    for name, spec in space.items():
        own = OmegaConf.select(cfg, name.lstrip("+"))
        if not isinstance(spec, dict) or type(own) not in (int, float):
            continue
        if not spec["low"] <= own <= spec["high"]:
            print(
                f"{name} is {own:g} without a search, outside {spec['low']:g} to "
                f"{spec['high']:g}; --config names a file with another space",
                file=sys.stderr,
            )


def _check_data(cfg: DictConfig) -> None:
    """Refuse to add trials to one that was run on other data than there are now."""
    run_dir = Path(cfg.paths.run_dir)
    if change := DataNow().change(cfg, run_dir):
        raise SearchError(f"{run_dir.name}: {change}; sweep=<name> begins another search, on these")


def _run_trial(
    study: "optuna.Study", trial: Any, compose_trial: Callable[[dict[str, Any]], DictConfig]
) -> None:
    from optuna.trial import TrialState

    cfg = compose_trial(trial.params)
    run_dir = Path(cfg.paths.run_dir)
    write_config(run_dir, cfg)
    if run_in_process(run_dir, overwrite=False):
        score = (read_metrics(run_dir) or {})["accuracy"]["best"]["val"]
        study.tell(trial.number, score)
        outcome = f"validation accuracy {100 * score:.2f} %"
    elif read_status(run_dir) == "failed":
        study.tell(trial.number, state=TrialState.FAIL)
        outcome = "failed"
    else:  # another process runs it, or it was stopped: the trial is still open
        raise SearchError(
            f"trial {trial.number} is not finished ({run_dir}); the same command goes on with it"
        )
    print(f"trial {trial.number}: {_join(trial.params)}: {outcome}", flush=True)


def _distribution(name: str, spec: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    try:
        if isinstance(spec, list):
            if any(isinstance(value, dict | list) for value in spec):
                raise TypeError("a value is a text, a number, true, false or null")
            return CategoricalDistribution(spec)
        ends = [value for key, value in spec.items() if key in ("low", "high", "step")]
        if not all(type(value) in (int, float) and math.isfinite(value) for value in ends):
            raise TypeError("its ends are numbers")
        are_whole = all(isinstance(value, int) for value in ends)
        return (IntDistribution if are_whole else FloatDistribution)(**spec)
    except (AttributeError, TypeError, ValueError) as error:
        raise SearchError(
            f"{name}: {spec} is neither a list of values nor {{low, high, log, step}}: {error}"
        ) from error


def _first_value(spec: Any) -> Any:
    return spec[0] if isinstance(spec, list) else spec["low"]


def _further_values(spec: Any) -> list[Any]:
    return spec[1:] if isinstance(spec, list) else [spec["high"]]


def _options(params: dict[str, Any]) -> list[str]:
    return [write_override(name, value) for name, value in params.items()]


def _join(params: dict[str, Any]) -> str:
    return shlex.join(_options(params))


@readers_may_go()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake of the user gives one line and exit code 2."""
    parser = make_parser("macformer-tune", __doc__ or "")
    parser.add_argument("overrides", nargs="*", help="options of macformer-train for every trial")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="the search space")
    parser.add_argument("--num-trials", type=int, help="trials in all, earlier calls included")
    args = parser.parse_intermixed_args(arguments)
    overrides = [f"sweep={args.config.stem}", *args.overrides]
    try:
        cfg = read_settings(args.config, ALLOWED)
        if args.num_trials is not None:
            cfg.num_trials = args.num_trials
            check(cfg, ALLOWED)
        space: Any = OmegaConf.to_container(cfg.space)
        study = search(
            overrides,
            space=space,
            sampler={"seed": cfg.seed, "n_startup_trials": cfg.num_startup_trials},
            num_trials=cfg.num_trials,
            config_dirs=args.config_dir,
        )
        best = study.best_trial
    except (SearchError, OSError, ValueError) as error:
        print(f"macformer-tune: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("macformer-tune: interrupted", file=sys.stderr)
        return 130
    print(f"best of {len(study.trials)}: trial {best.number}, {100 * study.best_value:.2f} %")
    folders = [f"--config-dir={folder}" for folder in args.config_dir]
    print(shlex.join(["macformer-train", *folders, *args.overrides, *_options(best.params)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
