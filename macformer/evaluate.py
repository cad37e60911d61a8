"""Score a finished or interrupted run again from its checkpoint.

macformer-evaluate outputs/runs/<cell> [--checkpoint best|last] [--split test|validation]
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Print the accuracy of a run's checkpoint on a split.

    Returns:
        The exit code: 0, or 2 where the folder is not a run's, or its checkpoint or data are not
        there or not whole.
    """
    parser = argparse.ArgumentParser(
        prog="macformer-evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", type=Path, help="the folder of one run")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    args = parser.parse_args(arguments)
    try:
        accuracy = evaluate(args.run_dir, checkpoint=args.checkpoint, split=args.split)
    except (ValueError, OSError, RuntimeError) as error:  # the last: of a device
        print(f"{args.run_dir}: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("macformer-evaluate: interrupted", file=sys.stderr)
        return 130
    print(f"{args.split} accuracy {100 * accuracy:.2f} % ({args.checkpoint}, {args.run_dir})")
    return 0


def evaluate(run_dir: Path, *, checkpoint: str, split: str) -> float:
    """Return the accuracy of a checkpoint, ``best`` or ``last``, on a split, by one device.

    Raises:
        ValueError: If the configuration or the checkpoint is missing or damaged.
    """
    from macformer.callbacks import Heartbeat
    from macformer.record import CHECKPOINTS_NAME, read_config, read_metrics
    from macformer.runs.build import build_run, without_start
    from macformer.runs.checkpoint import load_weights

    sys.path.append(os.getcwd())  # where a user's own variants lie
    cfg = read_config(run_dir)
    cfg.logger = None
    cfg.trainer.update(devices=1, num_nodes=1, strategy="auto")
    built = build_run(without_start(cfg))
    trainer: Any = built.trainer  # the run itself may be at work, and say so there
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, Heartbeat)]
    load_weights(built.module.model, run_dir / CHECKPOINTS_NAME / f"{checkpoint}.ckpt")
    score = built.trainer.test if split == "test" else built.trainer.validate
    data: Any = built.data
    before = (read_metrics(run_dir) or {}).get("data_digest")
    if before not in (None, data.digest):
        log.warning("the data are not those of the run: digest %s, now %s", before, data.digest)
    (result,) = score(built.module, data, verbose=False)
    return next(value for name, value in result.items() if name.endswith("/accuracy"))


if __name__ == "__main__":
    sys.exit(main())
