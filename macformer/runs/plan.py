"""What a sweep will run: its cells, as they stand on disk before it starts."""

import itertools
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from macformer.record import describe_uncomposed, read_metrics, write_metrics
from macformer.runs.config import COMPOSITION_ERRORS
from macformer.runs.data_now import DataNow
from macformer.runs.hydra_bridge import (
    ConfigLoader,
    Override,
    compose_job,
    expand_glob,
    find_options,
    is_glob,
    parse_overrides,
    use_hydra_config,
)
from macformer.runs.hydra_messages import one_line
from macformer.runs.process import AGAIN, is_running, pretraining_folder, run_lock

UNCOMPOSED = "uncomposed-"  # begins the folder of a cell for which there is no configuration
NO_SEED = -1
MANY = 20  # cells whose composition takes long enough to be announced


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep as it stands on disk before the sweep starts.

    ``status`` is ``new``, ``interrupted``, ``running`` (in another process), ``failed``,
    ``finished``, ``outdated`` if it is finished on other data than there are now, or ``uncomposed``
    where there is no configuration for it: then ``lock`` is held as long as the sweep lasts, unless
    another sweep holds it, and records the cell. ``pretraining`` is the folder of the run that
    comes before it, if any.
    """

    overrides: Sequence[str]
    run_dir: Path
    status: str
    lock: FileLock | None = None
    pretraining: Path | None = None


def plan_cells(config: DictConfig, loader: ConfigLoader) -> list[Cell]:
    """Compose every cell of a multirun and look for its folder.

    A cell that cannot be composed is recorded as failed. Such records last until the next call that
    finds nobody at work on the sweep that left them.

    Raises:
        HydraException: If no cell can be composed.
    """
    for folder in Path(config.hydra.sweep.dir).glob(UNCOMPOSED + "*"):
        if not is_running(folder):
            shutil.rmtree(folder, ignore_errors=True)  # another call may do so, too
    cells: dict[Path, Cell] = {}  # options that change nothing lead to one folder
    errors: list[tuple[Sequence[str], Exception]] = []
    jobs, data_now = parse_jobs(config, loader), DataNow()
    unknown = set(config.best_of)
    if len(jobs) > MANY:
        print(f"composing {len(jobs)} cells", flush=True)  # a third of a second each
    for overrides in jobs:
        try:
            cfg = compose_job(config, loader, overrides)
            run_dir = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir)
            unknown = {name for name in unknown if not _has_option(cfg, name)}
        except COMPOSITION_ERRORS as error:
            errors.append((overrides, error))
        else:
            change = None if config.overwrite else data_now.change(cfg, run_dir)
            if change:
                print(f"{run_dir.name}: {change}; {AGAIN}", file=sys.stderr)
            status = "outdated" if change else read_state(run_dir)
            cells[run_dir] = Cell(overrides, run_dir, status, pretraining=pretraining_folder(cfg))
    use_hydra_config(config)
    if errors and not cells:
        raise errors[0][1]
    if unknown:
        swept = {key for key, number in Counter(_values(jobs)).items() if number > 1}
        raise ValueError(
            f"best_of names {', '.join(sorted(unknown))}, which no cell has; the sweep is over "
            f"{', '.join(sorted(swept)) or 'nothing'}"
        )
    held: dict[Path, FileLock] = {}  # several cells may have one folder
    return [*cells.values(), *(_record_uncomposed(config, *error, held) for error in errors)]


def parse_jobs(config: DictConfig, loader: ConfigLoader) -> list[list[str]]:
    """Return the overrides of each job: the product of what the experiment and the user sweep."""
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    choices: dict[str, list[str]] = {}  # the command line comes later, and wins
    for override in parse_overrides([*swept, *config.hydra.overrides.task]):
        key = override.get_key_element()
        if override.is_sweep_override():
            values = _swept_values(override, config, loader)
            choices[key] = [f"{key}={value}" for value in values]
        elif override.is_delete():
            choices[key] = [str(override.input_line)]
        else:
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
    return [list(job) for job in itertools.product(*choices.values())]


def _swept_values(override: Override, config: DictConfig, loader: ConfigLoader) -> Sequence[str]:
    if not is_glob(override):
        listed = list(dict.fromkeys(override.sweep_string_iterator()))
        if not listed:
            raise ValueError(f"{override.input_line} has no values; give one or more to sweep over")
        return listed
    group = override.key_or_group
    hidden: list[str] = list(config.get("unless_named", {}).get(group, []))
    values = expand_glob(override, find_options(config, loader, group), hidden)
    if not values:
        raise ValueError(
            f"{override.input_line} leaves nothing; {', '.join(hidden)} must be named to be swept"
        )
    return values


def _has_option(cfg: DictConfig, name: str) -> bool:
    """Say whether a cell has an option of this name, at whatever place."""
    last = re.escape(name.split(".")[-1])
    return re.search(rf"^ *{last}:", OmegaConf.to_yaml(cfg), re.MULTILINE) is not None


def _values(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Name the option of each value that some job has."""
    return [override.partition("=")[0] for override in {o for job in jobs for o in job}]


def read_state(run_dir: Path) -> str:
    """Say how a cell stands: as :class:`Cell` has it, but for what only planning finds out."""
    if is_running(run_dir):
        return "running"
    status = (read_metrics(run_dir) or {}).get("status")  # final, since nobody holds the lock
    return {None: "new", "running": "interrupted"}.get(status) or str(status)


def _record_uncomposed(
    config: DictConfig, overrides: Sequence[str], error: Exception, held: dict[Path, FileLock]
) -> Cell:
    """Record a cell as failed; the lock of its folder joins those that this sweep holds."""
    chosen = {**config.hydra.runtime.choices, "seed": config.seed}
    chosen |= {key: value for key, _, value in (o.partition("=") for o in overrides)}
    reason = one_line(error)
    metrics = describe_uncomposed(chosen, reason=reason)
    try:
        metrics["seed"] = int(chosen["seed"])
    except ValueError:  # what is wrong is the seed itself, and tables sort by numbers
        metrics["seed"] = NO_SEED
    print(f"{metrics['name']}: no valid configuration: {reason}", file=sys.stderr)
    run_dir = Path(config.hydra.sweep.dir, UNCOMPOSED + metrics["name"])
    if run_dir not in held:
        lock = run_lock(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:  # of another call, which records the same
            return Cell(overrides, run_dir, "uncomposed")
        held[run_dir] = lock
    others = (read_metrics(run_dir) or {}).get("reason")  # with another value of some option
    if f"; {reason};" not in f"; {others};":
        write_metrics(run_dir, {**metrics, "reason": f"{others}; {reason}" if others else reason})
    return Cell(overrides, run_dir, "uncomposed", held[run_dir])
