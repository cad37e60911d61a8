"""Command line and reports of the attention benchmark."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from macformer.plotting import draw_over_length, save

PLOTS = {"ms": ("time", "time (ms)"), "peak MiB": ("memory", "peak memory (MiB)")}
LISTS = ("attention", "vs", "length", "mode")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its table and plots."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes into the progress bar
    from macformer.benchmark.measure import run_benchmark  # torch takes seconds, errors should not

    parser = argparse.ArgumentParser(prog="macformer-bench", description="Measure attentions.")
    parser.add_argument("options", nargs="*", help="key=value of configs/benchmark.yaml")
    parser.add_argument("--config-dir", type=Path, action="append", default=[])
    args = parser.parse_intermixed_args(arguments)
    try:
        cfg = load_config(args.options, config_dirs=args.config_dir)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    table = run_benchmark(cfg)
    write_report(table, cfg)
    print(to_markdown(table))
    return 0


def load_config(arguments: Sequence[str], *, config_dirs: Sequence[Path] = ()) -> DictConfig:
    """Override ``configs/benchmark.yaml`` by ``key=value`` and ``key=value,value``.

    Args:
        config_dirs: Folders of the user's own configurations.

    Raises:
        ValueError: If a key, a mode, a peer or a value is unknown.
    """
    from macformer.benchmark.cases import MODES
    from macformer.benchmark.peers import PEERS

    defaults = OmegaConf.create(files("configs").joinpath("benchmark.yaml").read_text())
    OmegaConf.set_struct(defaults, True)
    given = [argument for argument in arguments if "=" in argument]
    if len(given) < len(arguments):
        raise ValueError(f"arguments are key=value, got {sorted(set(arguments) - set(given))}")
    split = [
        f"{key}=[{value.strip('[]')}]" if key in LISTS else f"{key}={value}"
        for key, _, value in (argument.partition("=") for argument in given)
    ]
    try:
        cfg = OmegaConf.merge(defaults, OmegaConf.from_dotlist(split))
    except OmegaConfBaseException as error:
        raise ValueError(f"{str(error).splitlines()[0]}; keys are {sorted(defaults)}") from error
    assert isinstance(cfg, DictConfig)
    OmegaConf.set_struct(cfg, False)
    cfg.config_dirs = [str(folder.expanduser().resolve()) for folder in config_dirs]
    for key, allowed in (("mode", MODES), ("vs", PEERS)):
        unknown = set(cfg[key]) - set(allowed)
        if unknown:
            raise ValueError(f"{key} {sorted(unknown)} is unknown; allowed are {list(allowed)}")
    return cfg


def to_markdown(table: pd.DataFrame) -> str:
    """Write the table for people."""
    return table.to_markdown(index=False, floatfmt=".3g")


def write_report(table: pd.DataFrame, cfg: DictConfig) -> None:
    """Write table.csv, table.md, config.yaml, and a plot of time and one of memory."""
    folder = Path(cfg.output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    table.to_csv(folder / "table.csv", index=False)
    clock = "CPU time" if cfg.device == "cpu" and cfg.threads == 1 else "wall time"
    caption = (
        f"{cfg.device}, {cfg.threads} threads of torch, {cfg.dtype}, {clock}, "
        f"median of {cfg.rounds} "
        f"interleaved rounds; batch {cfg.batch_size}, {cfg.num_heads} heads of {cfg.head_dim}"
    )
    (folder / "table.md").write_text(f"{caption}\n\n{to_markdown(table)}\n")
    for column, (stem, label) in PLOTS.items():
        measured = table[table[column] > 0]
        if not measured.empty:
            save(draw_over_length(measured, {column: label}), folder / stem)
