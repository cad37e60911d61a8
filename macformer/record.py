"""What a run leaves on disk: the names, the schema and the reading of its files.

outputs/<sweep>/<cell>/
    config.yaml            the resolved configuration
    metrics.json           status, results, and all that is needed to rebuild a row of a table
    predictions.npz        each test row's label, prediction and margin
    metrics.csv            the curves
    progress.json          how far it is, while it is at work: see macformer.heartbeat
    checkpoints/           best.ckpt, last.ckpt
    error.log              the traceback of a failure
    error.rank.log         the reason, where it was one of the ranks behind the first that failed

Every file is written by :mod:`macformer.whole_file`, so that it is whole. Paths in a configuration
are those of the folder where it is read: a folder can be moved, copied or linked.
"""

import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from macformer.provenance import source_commit, versions
from macformer.whole_file import whole_file

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.npz"
CHECKPOINTS_NAME = "checkpoints"
CURVE_NAME = "metrics.csv"
RANK_ERROR_NAME = "error.rank.log"
MAX_ID = 128  # characters that Weights & Biases takes for the id of a run

SCHEMA = 1
# On disk a run that was killed still says that it is running; the lock of a running one is held.
STATUSES = ("running", "interrupted", "failed", "finished")
NOT_EXCLUSIVE = "exclusive=false was given"
IDENTITY = ("task", "attention", "ppsbn", "recipe", "seed")  # what tells the cells of a table apart
_ANSWERS = {"row", "label", "best_prediction"}  # what a comparison of runs needs of predictions
_CONFIG_KEYS = ("paths", "task", "model", "trainer")  # the file without one of them is not whole

log = logging.getLogger(__name__)


class DamagedRecord(ValueError):
    """A file of a run that cannot be read, and is not a run's."""


def describe_run(cfg: DictConfig) -> dict[str, Any]:
    """Say which run this is, before it has any result."""
    return {
        "schema": SCHEMA,
        "status": "running",
        "reason": None,
        "identity": cfg.identity,
        "name": cfg.cell,
        "task": cfg.task.name,
        "attention": cfg.choices.attention,
        "ppsbn": cfg.choices.ppsbn,
        "recipe": cfg.recipe.name,
        "seed": cfg.seed,
        "commit": source_commit(),
        "versions": versions(),
        "exclusive": cfg.exclusive,
        "sharing": None if cfg.exclusive else NOT_EXCLUSIVE,
        "config": OmegaConf.to_container(cfg, resolve=True),
    }


def describe_uncomposed(choices: Mapping[str, Any], *, reason: str) -> dict[str, Any]:
    """Say which run this would have been, had there been a configuration for it."""
    names = {key: choices[key] for key in IDENTITY}
    names["attention"] = row_name(choices)
    label = "{task}-{attention}-ppsbn_{ppsbn}-{recipe}-seed{seed}".format(**names)
    return {
        "schema": SCHEMA,
        "status": "failed",
        "reason": reason,
        "identity": None,
        "name": re.sub(r"[^\w.-]+", "_", label)[:MAX_ID],  # that a folder can have, too
        **names,
    }


def row_name(choices: Mapping[Any, Any]) -> str:
    """Name the row of the tables: an attention, rotated or not, or another mixer in its place.

    Rows that begin with pretrained weights stand apart.
    """
    pretrained = "" if choices["pretrain"] == "none" else f"+{choices['pretrain']}"
    if choices["mixer"] != "attention":
        return choices["mixer"] + pretrained
    rotated = "" if choices["rotary"] == "without" else "+rotary"
    return choices["attention"] + rotated + pretrained


def add_ppsbn(row: str, ppsbn: str) -> str:
    """Name a row with the ppSBN around it."""
    if ppsbn == "without":
        return row
    return f"{row} + ppSBN" + ("" if ppsbn == "with" else f" ({ppsbn})")


def read_config(run_dir: Path, *, folder: Path | None = None) -> DictConfig:
    """Read the resolved configuration of a run, its own paths as they are now.

    Args:
        folder: Where the file lies, if not in the run's folder.

    Raises:
        DamagedRecord: If neither it nor its copy in metrics.json is whole.
    """
    path = (folder or run_dir) / CONFIG_NAME
    cfg = _load_config(path)
    if cfg is None:
        cfg = OmegaConf.create((read_metrics(run_dir) or {}).get("config") or {})
        if not _is_whole(cfg):
            fault = "is damaged" if path.exists() else "does not exist; give the folder of a run"
            raise DamagedRecord(f"{path} {fault}")
        log.warning("%s is missing or damaged; %s has a copy", path, METRICS_NAME)
    assert isinstance(cfg, DictConfig)
    values: Any = OmegaConf.to_container(cfg)
    return DictConfig(_moved(values, cfg.paths.run_dir, str(run_dir)))


def _load_config(path: Path) -> DictConfig | None:
    try:
        cfg = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError):
        return None
    return cfg if isinstance(cfg, DictConfig) and _is_whole(cfg) else None


def _is_whole(cfg: Any) -> bool:
    return all(key in cfg for key in _CONFIG_KEYS)


def _moved(value: Any, old: str, new: str) -> Any:
    """Replace a folder by another in all paths of a configuration."""
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(old + os.sep)):
        return new + value[len(old) :]
    return value


def printable(text: str) -> str:
    """Show as escapes what a terminal would obey or hide: whoever wrote a record chose its text."""
    return "".join(x if x.isprintable() else ascii(x)[1:-1] for x in text)


def write_config(folder: Path, cfg: DictConfig) -> None:
    """Write the resolved configuration of a run; several processes may, before one has its lock."""
    with whole_file(folder / CONFIG_NAME, writer=f".{uuid4().hex}") as file:
        file.write(OmegaConf.to_yaml(cfg, resolve=True).encode())


def walk_runs(folders: Iterable[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder at or below some others once, with the names of its files.

    Links are followed. Nothing below a run is looked at, which may hold thousands of files of its
    loggers; what vanishes is passed over.
    """
    seen = set()
    for folder in folders:
        for at, below, names in os.walk(folder, followlinks=True):
            place = os.path.realpath(at)
            if place in seen or METRICS_NAME in names:
                below.clear()
            if place not in seen:
                seen.add(place)
                yield Path(at), names


def read_record(path: Path) -> dict[str, Any]:
    """Read a metrics.json of this schema, whatever its status.

    Raises:
        DamagedRecord: If it is not the record of a run.
    """
    record = _read_json(path)
    if record.get("schema") != SCHEMA:
        raise DamagedRecord(f"{path} is not the record of a run (schema {SCHEMA})")
    return record


def read_metrics(run_dir: Path) -> dict[str, Any] | None:
    """Read a run's metrics; None where it has none, or names a file that is damaged."""
    path = run_dir / METRICS_NAME
    if not path.exists():
        return None
    try:
        return _read_json(path)
    except DamagedRecord as error:
        log.warning("%s; the run goes on from what is whole", error)
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedRecord(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict) or "status" not in record:
        raise DamagedRecord(f"{path} is not the record of a run (schema {SCHEMA})")
    if record["status"] not in STATUSES:
        raise DamagedRecord(
            f"{path} has status {record['status']}, not one of {', '.join(STATUSES)}"
        )
    if record["status"] == "finished" and not _has_accuracy(record):
        raise DamagedRecord(f"{path} says finished and holds no accuracy")
    return record


def _has_accuracy(record: dict[str, Any]) -> bool:
    try:
        return "test" in record["accuracy"]["best"]
    except (LookupError, TypeError):
        return False


def read_status(run_dir: Path) -> str | None:
    """Read one of ``STATUSES``; None before a run's start."""
    return (read_metrics(run_dir) or {}).get("status")


def write_metrics(run_dir: Path, metrics: dict[str, Any]) -> None:
    """Replace a run's metrics."""
    with whole_file(run_dir / METRICS_NAME) as file:
        file.write(json.dumps(metrics, indent=1).encode())


def write_end(run_dir: Path, status: str, reason: str) -> None:
    """Mark a run as failed or interrupted, keeping what is known of it."""
    known = read_metrics(run_dir) or describe_run(read_config(run_dir))
    write_metrics(run_dir, {**known, "status": status, "reason": reason})


def read_rank_error(run_dir: Path) -> str | None:
    """Return why one of the ranks behind the first failed, which this one does not learn itself."""
    with suppress(OSError):
        return (run_dir / RANK_ERROR_NAME).read_text().strip() or None
    return None


def write_predictions(run_dir: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what :func:`read_predictions` reads."""
    buffer = io.BytesIO()  # savez seeks, and leaves a half behind where it cannot write
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType] (names, not options)
    with whole_file(run_dir / PREDICTIONS_NAME) as file:
        file.write(buffer.getvalue())


def read_predictions(run_dir: Path) -> dict[str, np.ndarray] | None:
    """Read what a run answered on each row of its test split; None where it has not been tested.

    ``row`` counts from the start of the split, and is the same example in every run on the same
    data. ``label`` is the true class; ``best_prediction`` and ``last_prediction`` are the classes
    that the best and the last weights answer, and ``best_margin`` and ``last_margin`` the logit of
    the true class above the largest other one: positive where the answer is right. All but ``row``
    have a second axis where each row is asked several times.

    Raises:
        DamagedRecord: If the file is not whole.
    """
    path = run_dir / PREDICTIONS_NAME
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise DamagedRecord(f"{path} is damaged: {error}") from error
    if lacking := _ANSWERS - found.keys():
        raise DamagedRecord(f"{path} lacks {', '.join(sorted(lacking))}")
    return found
