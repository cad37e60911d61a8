"""Prepare the data of one or more tasks.

    macformer-prepare task=listops
    macformer-prepare task=text,image task.source=local task.source_dir=~/datasets

The options are those of macformer-train, of which those that decide the data matter.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from macformer.runs.config import compose
from macformer.runs.help import make_parser

TASK = "task="
FAILURES = (ValueError, OSError, RuntimeError)  # the last: of a worker that was killed


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare each task that the command line names, and say what there is then.

    Returns:
        The exit code: 0 if all tasks are ready, 1 if one is not, 2 for a call without a task.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = make_parser("macformer-prepare", __doc__ or "")
    parser.add_argument("options", nargs="*", help="options of macformer-train")
    args = parser.parse_intermixed_args(arguments)
    names = [
        name
        for option in args.options
        if option.startswith(TASK)
        for name in option.removeprefix(TASK).split(",")
    ]
    if not names:
        parser.print_help()
        return 2
    options = [option for option in args.options if not option.startswith(TASK)]
    exit_code = 0
    for name in names:
        try:
            print("\n".join(prepare(name, *options, config_dirs=args.config_dir)))
        except FAILURES as error:
            print(f"{name}: {error}", file=sys.stderr)
            exit_code = 1
        except KeyboardInterrupt:
            print(f"{name}: interrupted; the next call goes on from here", file=sys.stderr)
            return 130
    return exit_code


def prepare(task: str, *options: str, config_dirs: Sequence[Path]) -> list[str]:
    """Prepare a task as macformer-train with the same options would, and describe it in lines."""
    from macformer.runs.build import build_data  # torch takes seconds

    cfg = compose(f"{TASK}{task}", *options, config_dirs=config_dirs)
    data: Any = build_data(cfg)
    data.prepare_data()
    folder, *lines = data.describe()
    return [f"{task}: {folder}", *lines]


if __name__ == "__main__":
    sys.exit(main())
