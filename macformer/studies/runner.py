"""Measure what is missing of a study, and draw what is there."""

import importlib
import importlib.metadata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import pandas as pd
import torch
from filelock import FileLock
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from macformer.measuring import check_device
from macformer.plotting import save
from macformer.provenance import device_name, package_version, source_commit
from macformer.runs.allowed import COUNT, DEVICE, FLAG, SEED, check, list_of, one_of
from macformer.runs.hydra_messages import one_line
from macformer.runs.identity import digest
from macformer.whole_file import replaced, whole_file

ROWS, CONFIG, TABLE, LOCK = "rows.csv", "config.yaml", "table.md", ".rows.lock"

ALLOWED = {
    "seeds": list_of(SEED, least=0),
    "device": DEVICE,
    "threads": COUNT,
    "overwrite": FLAG,
    "render": FLAG,
}

Row = dict[str, Any]


class StudyError(ValueError):
    """A study that cannot run; one line says why."""


@runtime_checkable  # by the checks of types in tests
class Study(Protocol):
    """What a module of a study defines; see :mod:`macformer.studies`."""

    def points(self, cfg: DictConfig) -> list[Row]: ...

    def measure(self, point: Row, cfg: DictConfig) -> Iterable[Row]: ...

    def table(self, frame: pd.DataFrame) -> pd.DataFrame: ...

    def plot(self, frame: pd.DataFrame) -> Figure: ...


def run_study(cfg: DictConfig, folder: Path) -> list[Path]:
    """Measure the points that the folder's rows lack, then write table and plot.

    Rows are saved after each point, so that an interrupted study goes on where it stood, and
    several calls may add to one folder. A point that fails is left for the next call.

    Raises:
        StudyError: If the device cannot be used here, the folder holds rows of other settings, or
            some points have failed; of these, after all others.
    """
    study = load_study(cfg)
    try:
        check_device(cfg.device)
    except ValueError as error:
        raise StudyError(str(error)) from error
    rows = [] if cfg.overwrite else read_rows(folder)
    if any(row["settings"] != settings_of(row, cfg) for row in rows):
        raise StudyError(
            f"{folder / ROWS} was measured with other settings; overwrite=true drops it, another "
            "paths.output_dir keeps it"
        )
    torch.set_num_threads(cfg.threads)
    done = {row["point"] for row in rows}
    points = _points(study, cfg)
    missing = [point for point in points if point_key(point, cfg) not in done]
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    source = provenance(cfg.device)
    drops, failed, reasons = cfg.overwrite, [], []
    with _progress() as progress:
        for point in progress.track(missing, total=len(missing), description=cfg.study.name):
            own = {**source, "settings": settings_of(point, cfg)}
            key = {"point": point_key(point, cfg)}
            try:
                found = [{**own, **point, **row, **key} for row in study.measure(point, cfg)]
            except Exception as error:
                plain = isinstance(error, (ValueError, OSError))  # what the user can mend
                reason = one_line(error) if plain else f"{type(error).__name__}: {error}"
                if reason not in reasons:  # of an option, say: other points have it, too
                    progress.console.print(f"failed: {_describe(point)}: {reason}", markup=False)
                reasons.append(reason)
                failed.append(f"{_describe(point)}: {reason}")
            else:
                _add_rows(found, folder, drops=drops)
                drops = False
    if failed:
        with suppress(StudyError):  # none is there
            render_study(cfg, folder)
        raise StudyError(
            f"{len(failed)} of {len(missing)} points failed, which the same command tries again; "
            f"the first: {failed[0]}"
        )
    return render_study(cfg, folder)


def render_study(cfg: DictConfig, folder: Path) -> list[Path]:
    """Write table and plot of the points that the options ask for, of all seeds; return the files.

    Nothing is measured. The rows may hold more: points of another device or budget, which no mean
    should mix with these.

    Raises:
        StudyError: If none of the points is among the rows.
    """
    study = load_study(cfg)
    rows = read_rows(folder)
    seeds = sorted({*cfg.seeds, *(int(row["seed"]) for row in rows)})
    of_all_seeds = cast(DictConfig, OmegaConf.merge(cfg, {"seeds": seeds}))
    asked = {point_key(point, cfg) for point in _points(study, of_all_seeds)}
    frame = pd.DataFrame([row for row in rows if row["point"] in asked])
    if frame.empty:
        raise StudyError(
            f"no rows of these points in {folder / ROWS}; run the study without render=true first"
        )
    table = study.table(frame).astype(object)
    body = table.where(table.notna(), None).to_markdown(index=False, floatfmt=".3g", missingval="")
    with replaced(folder / TABLE) as file:
        file.write(f"{describe_rows(frame)}\n\n{body}\n".encode())
    return [folder / ROWS, folder / TABLE, *save(study.plot(frame), folder / "plot")]


def _points(study: Study, cfg: DictConfig) -> list[Row]:
    """List the points of a study.

    Raises:
        StudyError: If there are none.
    """
    if points := study.points(cfg):
        return points
    raise StudyError(f"study={cfg.study.name} has no points: a list is empty, such as seeds")


def point_key(point: Row, cfg: DictConfig) -> str:
    """Name a point as it is measured here: another device or number of threads is another one."""
    return digest({**point, "device": cfg.device, "threads": cfg.threads})


def settings_of(point: Row, cfg: DictConfig) -> str:
    """Name what all sizes share at a point: of ``settings.tasks``, what its own task has."""
    settings: Any = OmegaConf.to_container(cfg.study.settings, resolve=True)
    if "tasks" in settings:
        settings["tasks"] = settings["tasks"].get(point["task"])
    return digest(settings)


def load_study(cfg: DictConfig) -> Study:
    """Import the study's module, once it is known that it can run.

    Raises:
        OptionError: If an option has a value that it cannot have.
        StudyError: If there is no such module.
    """
    check(cfg, {"size": one_of(*cfg.study.sizes)})  # first: the seeds are those of the size
    check(cfg, ALLOWED)
    try:
        study = importlib.import_module(cfg.study.module)
    except ModuleNotFoundError as error:
        raise StudyError(f"study.module is {cfg.study.module}: {error}") from error
    check(cfg, getattr(study, "ALLOWED", {}))
    return cast(Study, study)


def read_rows(folder: Path) -> list[Row]:
    """Read what was measured, nothing if nothing was."""
    if not (folder / ROWS).exists():
        return []
    return cast(list[Row], pd.read_csv(folder / ROWS, dtype=TEXT).to_dict("records"))


def provenance(device: str) -> Row:
    """Say on what, and by which code, a row is measured."""
    return {
        "device": device_name(torch.device(device)),
        "torch": torch.__version__,
        "macformer": package_version("macformer"),
        "commit": source_commit(),
    }


TEXT = {"settings": str, "point": str, "commit": str}  # hexadecimal digits may look like numbers


def describe_rows(frame: pd.DataFrame) -> str:
    """Say in one line where the rows come from."""
    seeds = frame["seed"].nunique()
    names = [
        ", ".join(map(str, frame[key].dropna().unique())) for key in ("device", "torch", "commit")
    ]
    return f"{seeds} seed{'s' * (seeds != 1)}; {names[0]}; torch {names[1]}; commit {names[2]}."


def _add_rows(found: list[Row], folder: Path, *, drops: bool) -> None:
    """Add the rows of a point to what the file holds by now, unless another call has had it first.

    The file is replaced at once, so that an interruption leaves whole points.

    Args:
        drops: Whether what the file holds goes instead.
    """
    with FileLock(folder / LOCK):
        rows = [] if drops else read_rows(folder)
        known = {row["point"] for row in rows}
        rows += [row for row in found if row["point"] not in known]
        with whole_file(folder / ROWS) as file:
            pd.DataFrame(rows).to_csv(file, index=False)


def _describe(point: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.items())


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn())
