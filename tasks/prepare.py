"""Prepare the data of one or more tasks.

    macformer-prepare task=listops
    macformer-prepare task=text,image task.source=local task.source_dir=~/datasets

The options are those of macformer-train, of which those that decide the data matter.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tasks.parallel import WorkerKilledError
from tasks.store.manifest import combined_sha256, read_manifest

_TASK = "task="
_FAILURES = (ValueError, OSError, WorkerKilledError, HydraException, OmegaConfBaseException)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare each task that the command line names, and say what there is then.

    Returns:
        The exit code: 0 if all tasks are ready, 1 if one is not, 2 for a call without a task.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = sys.argv[1:] if argv is None else list(argv)
    names = [name for a in arguments if a.startswith(_TASK) for name in a[len(_TASK) :].split(",")]
    if not names or "--help" in arguments:
        print(__doc__)
        return 0 if "--help" in arguments else 2
    overrides = [argument for argument in arguments if not argument.startswith(_TASK)]
    exit_code = 0
    for name in names:
        try:
            print("\n".join(prepare(name, overrides=overrides)))
        except _FAILURES as error:
            print(f"{name}: {error}", file=sys.stderr)
            exit_code = 1
        except KeyboardInterrupt:
            print(f"{name}: interrupted; the next call goes on from here", file=sys.stderr)
            return 130
    return exit_code


def prepare(task: str, *, overrides: Sequence[str]) -> list[str]:
    """Prepare a task as macformer-train with the same options would, and describe it in lines."""
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose("train", overrides=[f"{_TASK}{task}", *overrides])
    folder = hydra.utils.instantiate(cfg.task.prepare)(Path(cfg.paths.data_dir))
    return [f"{task}: {folder}", *describe(folder)]


def describe(folder: Path) -> list[str]:
    """Describe each split of a prepared folder in a line, and each floor."""
    manifest = read_manifest(folder)
    lines = []
    for name, split in manifest["splits"].items():
        rows = split["rows"]
        quantiles = ", ".join(f"{key} {value}" for key, value in split["lengths"].items())
        shares = " ".join(f"{100 * count / rows:.1f}" for count in split["class_counts"])
        left_out = f" ({split['left_out']} left out)" if split["left_out"] else ""
        lines.append(
            f"  {name}: {rows:,} rows{left_out}, {split['tokens']:,} tokens, "
            f"lengths {quantiles}; classes {shares} %; sha256 {combined_sha256(split)}"
        )
    for name, floor in manifest.get("floors", {}).items():
        lines.append(f"  floor {100 * floor['accuracy']:.1f} %, {name}: {floor['recipe']}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
