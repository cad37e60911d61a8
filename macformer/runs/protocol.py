"""A recipe's protocol for one task: its default block, and what its block for the task changes."""

from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from macformer.runs.allowed import written

DEFAULT = "default"
LIKE = "like"  # names the task whose protocol a block changes, in place of the default one


def merge_protocol(recipe: DictConfig, task: str, *, _root_: DictConfig) -> DictConfig:
    """Merge what a recipe says of a task over what it says of all.

    The two are merged key by key to any depth; interpolations stay, and one of them replaces what
    it stands for as a whole. A task that the recipe does not know has the default block.

    Raises:
        ValueError: If a block is like itself, or like one that does not exist, or is no mapping; if
            there is no default block.
    """
    blocks: Any = OmegaConf.to_container(recipe, resolve=False)
    protocol = OmegaConf.create(_merged_block(blocks, task, ()), parent=_root_)
    assert isinstance(protocol, DictConfig)
    return protocol


def fix_protocol(cfg: DictConfig) -> DictConfig:
    """Merge a configuration's protocol once, in place of once for each value taken from it."""
    with read_write(cfg):
        cfg.protocol = cfg.protocol
    return cfg


def _merged_block(blocks: dict[str, Any], task: str, seen: tuple[str, ...]) -> Any:
    changes = _block(blocks, task)
    other = changes.pop(LIKE, None)
    if other is None:
        if blocks.get(DEFAULT) is None:
            raise ValueError(f"recipe {blocks.get('name', '')} has no block {DEFAULT}")
        return _merged(_block(blocks, DEFAULT), changes)
    if other in (*seen, task) or other not in blocks:
        known = sorted(name for name in blocks if isinstance(blocks[name], dict))
        raise ValueError(f"recipe.{task}.{LIKE} is {other}; blocks are {', '.join(known)}")
    return _merged(_merged_block(blocks, other, (*seen, task)), changes)


def _block(blocks: dict[str, Any], name: str) -> dict[str, Any]:
    block = blocks.get(name)
    if not isinstance(block, dict | None):
        raise ValueError(f"recipe.{name} is {written(block)}; it must be a mapping")
    return dict(block or {})


def _merged(base: Any, changes: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    return {**base, **{key: _merged(base.get(key), value) for key, value in changes.items()}}
