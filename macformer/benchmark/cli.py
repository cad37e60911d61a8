"""Command line and reports of the attention benchmark."""

import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from macformer.plotting import draw_over_length, save
from macformer.provenance import device_name
from macformer.record import printable
from macformer.runs.allowed import (
    COUNT,
    FOLDER,
    NULL,
    POSITIVE,
    TEXT,
    TIMED,
    check,
    either,
    list_of,
    one_of,
)
from macformer.runs.help import describe_options, make_parser
from macformer.whole_file import replaced

DESCRIPTION = """Time attention alone, against softmax and other packages, over lengths.

    macformer-bench attention=softmax,rmfa_exp length=1024,4096 mode=forward
"""
PLOTS = {"ms": ("time", "time (ms)"), "peak MiB": ("memory", "peak memory (MiB)")}
LISTS = ("attention", "vs", "length", "mode")
ALLOWED = {
    "attention": either(NULL, list_of(TEXT)),
    "length": list_of(COUNT),
    "device": TIMED,
    "dtype": one_of("float32", "float16", "bfloat16", "float64"),
    "threads": COUNT,
    "batch_size": COUNT,
    "num_heads": COUNT,
    "head_dim": COUNT,
    "num_features": COUNT,
    "rounds": COUNT,
    "seconds": POSITIVE,
    "memory_limit_gib": POSITIVE,
    "output_dir": FOLDER,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its table and plots.

    A mistake of the user gives one line and exit code 2, before anything is measured.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes into the progress bar
    from macformer.benchmark.cases import check_rows  # torch takes seconds, --help should not
    from macformer.benchmark.measure import measure_lengths
    from macformer.benchmark.table import relate
    from macformer.measuring import check_device

    parser = make_parser("macformer-bench", DESCRIPTION, epilog=describe_options("benchmark"))
    parser.add_argument("options", nargs="*", help="option=value, or option=value,value")
    args = parser.parse_intermixed_args(arguments)
    try:
        cfg = load_config(args.options, config_dirs=args.config_dir)
        check_device(cfg.device)
        check_rows(cfg)
        folder = Path(str(cfg.output_dir)).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"macformer-bench: {error}", file=sys.stderr)
        return 2
    rows, code = [], 0
    try:
        for found in measure_lengths(cfg):  # whose rows stay whatever becomes of the next one
            rows += found
            write_report(relate(pd.DataFrame(rows)), cfg, folder)
    except KeyboardInterrupt:
        print("macformer-bench: interrupted", file=sys.stderr)
        code = 130
    except (OSError, MemoryError) as error:  # of a disk that is full, or the limit of memory
        print(f"macformer-bench: {error or 'no memory left'}", file=sys.stderr)
        code = 1
    if rows:
        print(to_markdown(relate(pd.DataFrame(rows))))
    return code


def load_config(arguments: Sequence[str], *, config_dirs: Sequence[Path] = ()) -> DictConfig:
    """Override ``configs/benchmark.yaml`` by ``key=value`` and ``key=value,value``.

    Args:
        config_dirs: Folders of the user's own configurations.

    Raises:
        ValueError: If a key is unknown, or a value cannot be that of its key.
    """
    defaults = OmegaConf.create(files("configs").joinpath("benchmark.yaml").read_text())
    OmegaConf.set_struct(defaults, True)
    given = [argument for argument in arguments if "=" in argument]
    if len(given) < len(arguments):
        raise ValueError(f"arguments are key=value, got {sorted(set(arguments) - set(given))}")
    split = [
        f"{key}=[{value.strip('[]')}]" if key in LISTS and value != "null" else f"{key}={value}"
        for key, _, value in (argument.partition("=") for argument in given)
    ]
    try:
        cfg = OmegaConf.merge(defaults, OmegaConf.from_dotlist(split))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{str(error).splitlines()[0]}; keys are {sorted(defaults)}") from error
    assert isinstance(cfg, DictConfig)
    check_options(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.config_dirs = [str(folder.expanduser().resolve()) for folder in config_dirs]
    return cfg


def check_options(cfg: DictConfig) -> None:
    """Refuse values that options of the benchmark cannot have.

    Raises:
        OptionError: With one line for all of them.
    """
    from macformer.benchmark.cases import MODES
    from macformer.benchmark.peers import PEERS

    check(cfg, ALLOWED | {"mode": list_of(one_of(*MODES)), "vs": list_of(one_of(*PEERS), least=0)})


def to_markdown(table: pd.DataFrame) -> str:
    """Write the table for people."""
    failure = [printable(text).replace("|", r"\|") for text in table["failure"]]
    return table.assign(failure=failure).to_markdown(index=False, floatfmt=".3g")


def write_report(table: pd.DataFrame, cfg: DictConfig, folder: Path) -> None:
    """Write bench.csv, bench.md, config.yaml, and a plot of time and one of memory."""
    import torch

    OmegaConf.save(cfg, folder / "config.yaml")
    with replaced(folder / "bench.csv") as file:
        table.to_csv(file, index=False)
    device = torch.device(cfg.device)
    cpu_clock = "CPU time" if cfg.threads == 1 else "wall time"
    clock = "device time of a replayed graph" if device.type == "cuda" else cpu_clock
    caption = (
        f"{device_name(device)}, {cfg.dtype}, {clock}, median of {cfg.rounds} "
        f"interleaved rounds; batch {cfg.batch_size}, {cfg.num_heads} heads of {cfg.head_dim}"
    )
    with replaced(folder / "bench.md") as file:
        file.write(f"{caption}\n\n{to_markdown(table)}\n".encode())
    for column, (stem, label) in PLOTS.items():
        measured = table[table[column] > 0]
        if not measured.empty:
            save(draw_over_length(measured, {column: label}), folder / stem)
