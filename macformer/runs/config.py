"""The one place where configurations are composed: for commands, studies and tests alike."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from macformer.provenance import package_version
from macformer.record import MAX_ID
from macformer.runs.help import describe_command
from macformer.runs.hydra_bridge import (
    calling_folder,
    errors_of_main,
    use_hydra_config,
    user_folders,
    without_command,
)
from macformer.runs.hydra_messages import one_line
from macformer.runs.identity import check_once, fix_identity
from macformer.runs.importing import make_importable
from macformer.runs.overrides import flags_first, leave_to_cells, read_overrides, write_override
from macformer.runs.protocol import merge_protocol
from macformer.runs.row import check_row
from macformer.runs.unread import readers_may_go

VERSION_BASE = "1.3"
COMPOSITION_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    RecursionError,  # of a file whose defaults list leads to itself
    ValueError,
    YAMLError,
)
MULTIRUN = ("-m", "--multirun")
HELP = ("-h", "--help")


class ConfigError(ValueError):
    """A configuration from which nothing can be composed or built; one line says why."""


def compose(
    *overrides: str, name: str = "train", config_dirs: Sequence[str | Path] = ()
) -> DictConfig:
    """Compose a file of ``configs/`` as its command would, for parts to be built from it.

    Args:
        overrides: Options of the command.
        name: The file.
        config_dirs: Folders of the user's own configurations, which become importable, too.

    Raises:
        ConfigError: If the options do not fit.
    """
    folders = [str(Path(folder).expanduser().resolve()) for folder in config_dirs]
    options = read_overrides(overrides)
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"--config-dir {folder} is not a folder")
    if folders:
        search = [f"file://{folder}" for folder in folders]
        options.append(write_override("hydra.searchpath", search))
    try:
        with (
            without_command(),
            hydra.initialize_config_module("configs", version_base=VERSION_BASE),
        ):
            cfg = hydra.compose(name, options, return_hydra_config=True)
            use_hydra_config(cfg)
            check_once(cfg)
            _take_from_hydra(cfg)
    except COMPOSITION_ERRORS as error:
        raise ConfigError(one_line(error)) from error
    make_importable(folders)
    return cfg


def _take_from_hydra(cfg: DictConfig) -> None:
    """Put values in the place of what refers to Hydra's node, and take the node away."""
    if "choices" in cfg:
        for key in cfg.choices:
            cfg.choices[key] = cfg.choices[key]
    cfg.paths.config_dirs = cfg.paths.config_dirs
    with open_dict(cfg):
        del cfg["hydra"]


def run_main(main: Callable[[], None], *, command: str) -> None:
    """Run a main function of Hydra's on the command line; a mistake of the user gives one line."""
    sys.argv[1:] = flags_first(sys.argv[1:])
    flags = [argument for argument in sys.argv[1:] if _is_flag(argument)]
    if any(flag in HELP for flag in flags):
        text = sys.modules[main.__module__].__doc__ or ""
        print(describe_command(command, text, name=command.removeprefix("macformer-")))
        return
    if "--version" in flags:
        print(f"macformer {package_version('macformer')}")
        return
    try:
        options = read_overrides(_options(sys.argv[1:]))
        if any(flag in MULTIRUN for flag in flags):
            options = leave_to_cells(options)
        sys.argv[1:] = _with_options(sys.argv[1:], options)
        with errors_of_main(), readers_may_go():
            main()
    except (*COMPOSITION_ERRORS, OSError) as error:  # of a folder that cannot be made
        if "HYDRA_FULL_ERROR" in os.environ:
            raise
        print(f"{command}: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        sys.exit(130)


def _is_flag(argument: str) -> bool:
    return argument.startswith("-")


def _options(arguments: Sequence[str]) -> list[str]:
    given = [argument for argument in arguments if not _is_flag(argument)]
    return [argument for argument in given if "=" in argument or argument.startswith("~")]


def _with_options(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    left = iter(options)
    return [next(left) if argument in _options([argument]) else argument for argument in arguments]


def _absolute(path: Any) -> str | None:
    """Expand ``~``, and begin relative paths where the user called."""
    if path is None:
        return None
    if type(path) not in (str, int):  # a folder may be called 2024
        raise ValueError(f"{path} stands where a path must")
    return str(calling_folder() / os.path.expanduser(str(path)))


def _cell_name(label: str, identity: str) -> str:
    """Name a cell so that it is one folder, and an id that Weights & Biases takes."""
    label = re.sub(r"[^\w.=+-]+", "_", label)
    return f"{label[: MAX_ID - len(identity) - 1]}-{identity}"


def _register_resolvers() -> None:
    resolvers = {
        "identity": lambda *, _root_: fix_identity(_root_),
        "protocol": merge_protocol,
        "row": check_row,
        "path": _absolute,
        "cell_name": _cell_name,
        "config_dirs": lambda: OmegaConf.create(user_folders()),
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


_register_resolvers()  # for whoever imports this: commands, and the workers of a launcher
