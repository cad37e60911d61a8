"""All that leans on Hydra's internals, which may change with its next minor release."""

import fnmatch
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from macformer.runs.variants import find_variants

__all__ = ["Callback", "ConfigLoader", "Override", "QuotedString"]  # for others to name

USER_SOURCES = "file"  # scheme of the folders of --config-dir and hydra.searchpath; ours is pkg


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse options by Hydra's grammar, sweeps of files by name left as they are.

    Raises:
        HydraException: If the grammar refuses one.
    """
    return OverridesParser.create().parse_overrides(list(overrides))


def current_loader() -> ConfigLoader:
    """Return the loader of the command that runs now."""
    return GlobalHydra.instance().config_loader()


def use_hydra_config(cfg: DictConfig) -> None:
    """Let ``${hydra:...}`` mean the node of this configuration."""
    HydraConfig.instance().set_config(cfg)


def compose_job(config: DictConfig, loader: ConfigLoader, overrides: Sequence[str]) -> DictConfig:
    """Compose one job of a multirun, which ``${hydra:...}`` then means."""
    cfg = loader.load_sweep_config(config, list(overrides))
    use_hydra_config(cfg)
    return cfg


def given_values(cfg: DictConfig) -> list[Override]:
    """List the options of a composed configuration that give values, not those that choose files.

    Without what was deleted. A configuration that has lost Hydra's node has none.
    """
    if "hydra" not in cfg:
        return []
    options = parse_overrides(_as_given(cfg.hydra.overrides.task))
    return [o for o in options if not (o.is_delete() or _chooses(o, cfg))]


def compose_files(cfg: DictConfig) -> DictConfig:
    """Compose a configuration again from the files that it chose, without the values given.

    Cells of a sweep that choose alike among files of this project share the result.
    """
    chosen = [
        option.input_line
        for option in parse_overrides(_as_given(cfg.hydra.overrides.task))
        if _chooses(option, cfg) and not option.is_delete()
    ]
    options = (*_as_given(cfg.hydra.overrides.hydra), *map(str, chosen))
    users = _user_folders(cfg.hydra.runtime)  # whose files may be edited meanwhile
    return (_load if users else _load_once)(cfg.hydra.job.config_name, options)


def _load(name: str, options: tuple[str, ...]) -> DictConfig:
    return current_loader().load_configuration(name, list(options), run_mode=RunMode.RUN)


_load_once = lru_cache(maxsize=64)(_load)


def _as_given(options: ListConfig) -> list[str]:
    """Return options with the interpolations that are in them."""
    plain: Any = OmegaConf.to_container(options, resolve=False)
    return plain


def _chooses(option: Override, cfg: DictConfig) -> bool:
    return option.key_or_group in cfg.hydra.runtime.choices


def calling_folder() -> Path:
    """Return the folder where the user called, wherever Hydra has gone since."""
    return Path(HydraConfig.get().runtime.cwd if HydraConfig.initialized() else Path.cwd())


def output_folder() -> Path:
    """Return the folder that Hydra has given the job that runs now."""
    return Path(HydraConfig.get().runtime.output_dir)


def is_multirun() -> bool:
    """Say whether the job that runs now is one of many."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def without_command() -> Iterator[None]:
    """Compose as if no command of Hydra's were running, and give it back what it had."""
    running, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running
        HydraConfig.instance().cfg = config


@contextmanager
def errors_of_main() -> Iterator[None]:
    """Have Hydra's main function raise what it would print over many lines."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]


def user_folders() -> list[str]:
    """Name the folders of the user's own configurations that were searched."""
    return _user_folders(HydraConfig.get().runtime) if HydraConfig.initialized() else []


def _user_folders(runtime: Any) -> list[str]:
    return [source.path for source in runtime.config_sources if source.schema == USER_SOURCES]


def find_options(config: DictConfig, loader: ConfigLoader, group: str) -> list[str]:
    """List the files of a group that a multirun can see, ours and the user's, bases left out.

    A folder of the user's in a group is a part of it, ``mine/elu``, unless it is a group of ours.
    """
    names = {name for name in loader.get_group_options(group) if not name.startswith("_")}
    for folder in _user_folders(config.hydra.runtime):
        names |= {variant.name for variant in find_variants(Path(folder), group)}
    return sorted(names)


def is_group(name: str) -> bool:
    """Say whether a group of ours has this name."""
    return files("configs").joinpath(name).is_dir()


def is_glob(override: Override) -> bool:
    return isinstance(override.value(), Glob)


def expand_glob(override: Override, options: Sequence[str], hidden: Sequence[str]) -> list[str]:
    """Return the options that the patterns of a glob match.

    Args:
        hidden: Patterns of options that a glob leaves out, unless one of its own patterns is
            within theirs: ``kernelized_*`` and ``kernelized_exp`` are within ``kernelized_*``.

    Raises:
        ValueError: If a pattern matches nothing.
    """
    glob = override.value()
    assert isinstance(glob, Glob)
    for pattern in (*glob.include, *glob.exclude):
        if not fnmatch.filter(options, pattern):
            raise ValueError(
                f"{pattern} in {override.input_line} matches nothing; there are "
                f"{', '.join(options) or 'no files at all'}"
            )
    left_out = [
        pattern for pattern in hidden if not any(fnmatch.fnmatch(p, pattern) for p in glob.include)
    ]
    return [
        name
        for name in glob.filter(list(options))
        if not any(fnmatch.fnmatch(name, pattern) for pattern in left_out)
    ]


def launch(
    config: DictConfig,
    loader: ConfigLoader,
    task_function: Callable[[DictConfig], Any],
    jobs: Sequence[Sequence[str]],
) -> list[Exception]:
    """Run jobs by the launcher that a configuration names, and return what went wrong."""
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks()),
        task_function=task_function,
        config=config,
    )
    try:
        ended = launcher.launch([list(overrides) for overrides in jobs], initial_job_idx=0)
    except Exception as error:  # of a queue, say; what the jobs did is on disk
        return [error]
    return [job._return_value for job in ended if job.status == JobStatus.FAILED]
