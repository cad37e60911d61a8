"""The rows of the tables as factories, by the names that the command line knows."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from macformer.dropin.sites import DropinError
from macformer.runs.build import build_attention
from macformer.runs.config import compose

Factory = Callable[..., nn.Module]

_GROUPS = ("attention", "ppsbn", "rotary")
NAMED = ("attention", "ppsbn", "overrides")  # what a saved model says of its row


def row_factory(
    attention: str,
    *,
    ppsbn: str,
    overrides: Sequence[str] = (),
    config_dirs: Sequence[str | Path] = (),
) -> Factory:
    """Return the factory that the options ``attention=`` and ``ppsbn=`` stand for.

    Args:
        overrides: Options below ``attention``, ``ppsbn`` and ``rotary``, as
            ``attention.num_features=256``. None of them may name what is called: a saved model
            has them in its ``config.json``, and loading one runs nothing of its author's choice.
        config_dirs: Folders of rows of your own, as ``--config-dir`` of a command.

    Raises:
        DropinError: If an override is of something else.
        ConfigError: If there is no such row, or it does not compose.
    """
    for group, name in (("attention", attention), ("ppsbn", ppsbn)):
        if not re.fullmatch(r"[\w./-]+", name):
            raise DropinError(f"{group} is {name!r}; it must be the name of a row's YAML")
    for override in overrides:
        group = override.lstrip("+~").partition("=")[0].replace("/", ".").partition(".")[0]
        if group not in _GROUPS or "_target_" in override or "${" in override:
            raise DropinError(
                f"{override!r} is not an option of a row; those of {', '.join(_GROUPS)} are, and "
                "what is called, _target_, belongs in a row's YAML"
            )
    cfg = compose(f"attention={attention}", f"ppsbn={ppsbn}", *overrides, config_dirs=config_dirs)
    return partial(build_attention, cfg)


def describe_row(attention: str | Factory, ppsbn: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return what names a row in a saved model; nothing names a factory of the caller's own."""
    if not isinstance(attention, str):
        return dict.fromkeys(NAMED)
    return dict(zip(NAMED, (attention, ppsbn, list(overrides)), strict=True))
