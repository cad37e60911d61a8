"""What Hydra and OmegaConf say in many lines, in one that says what would be right."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Parts that a recipe gives, below which Hydra overrides nothing.
OF_RECIPE = re.compile(r"(?:optimizer|scheduler|clip)\.\w+")
REWORDED: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (
        r"(?:In '.*?': )?Could not find '(.+)/([^/]+)' Available options in '.+?': (.*)",
        lambda m: f"there is no {m[1]}={m[2]}; {known_names(m[2], m[3].split())}",
    ),
    (
        r"Error parsing override '(.*?)' missing EQUAL .*",
        lambda m: f"{m[1]!r} is not of the form option=value",
    ),
    (
        r"Interpolation key '(task|recipe)\.(\w+)' not found",
        lambda m: f"the file that {m[1]}=... names has no {m[2]}; is it empty?",
    ),
    (
        r"Could not override '(optimizer|scheduler)'\. .*",
        lambda m: f"the recipe names the {m[1]}; a recipe of your own can name another",
    ),
    (
        r"Ambiguous value for argument '(.*?)=(.*?)' 1\. .*",
        lambda m: (
            f"{m[1]} is given several values, {m[2]}; -m makes a sweep over them, and "
            f"{m[1]}=[{m[2]}] is one list"
        ),
    ),
]


def one_line(error: BaseException) -> str:
    """Say in one line what Hydra or OmegaConf says in many, without where it looked."""
    if isinstance(error, RecursionError):
        return (
            "a defaults list leads to itself; it names a file of its own group /GROUP/NAME@_here_"
        )
    while not str(error) and error.__cause__ is not None:
        error = error.__cause__
    message = str(error).partition("Config search path")[0].partition("\n    full_key:")[0]
    message = message.split(" raised while resolving interpolation: ")[-1]
    message = " ".join(message.split())
    for pattern, reword in REWORDED:
        if found := re.fullmatch(pattern, message):
            return reword(found)
    return re.sub(
        r"Could not override '(.*?)'\. To append to your config use \+.*",
        lambda match: _unknown_option(match[1], error.__cause__),
        message,
    )


def known_names(name: str, known: Iterable[str]) -> str:
    """Say which name may have been meant, and which there are, bases left out."""
    names = [each for each in known if not each.startswith("_")]
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}there {'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}"


def _unknown_option(key: str, cause: Any) -> str:
    """Name the options that stand where one was looked for."""
    if OF_RECIPE.fullmatch(key):
        there = "which the recipe gives; change it there: recipe.default..."
        return f"Could not override '{key}', {there}"
    parent = getattr(cause, "parent_node", None)
    if not isinstance(parent, DictConfig):
        return f"there is no option {key}"
    missing = str(cause.key)  # of a.b.c the first part that is not there
    if missing not in key.split("."):  # but of the mapping that was given
        key = f"{key}.{missing}"
    names = [str(name) for name in parent if name != "hydra"]
    above = key.partition(f".{missing}")[0] if f".{missing}" in key else ""
    where = f"; in {above} " if above else "; "
    root: Any = parent._get_root()
    elsewhere = [path for path in _paths(root) if path.endswith(f".{missing}")]
    if elsewhere:
        return f"there is no option {key}; did you mean {' or '.join(elsewhere)}?"
    return f"there is no option {key}{where}{known_names(missing, names)}"


def _paths(cfg: DictConfig, above: str = "") -> Iterator[str]:
    """Yield the dotted path of every option that does not follow another."""
    for name in cfg:
        if name == "hydra" or OmegaConf.is_interpolation(cfg, str(name)):
            continue
        yield f"{above}{name}"
        child = cfg._get_node(name)
        if isinstance(child, DictConfig):
            yield from _paths(child, f"{above}{name}.")
