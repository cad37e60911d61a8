"""What the suite of the contract needs of pytest, for it and for whoever loads it.

``pytest -p macformer.check.plugin``. Imports stand in functions: a hook on the imports of this
package, such as jaxtyping's, comes after plugins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from omegaconf import DictConfig


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("macformer")
    group.addoption(
        "--config-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="hold DIR/attention/*.yaml and DIR/mixer/*.yaml to the contract, too",
    )
    group.addoption(
        "--only-theirs",
        action="store_true",
        help="hold nothing to the contract but what the folders of --config-dir bring",
    )
    group.addoption(
        "--outcomes", metavar="FILE", help="write what came of each variant's tests as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: minutes rather than seconds; run with -m slow")
    file = config.getoption("--outcomes")
    if file is not None:
        from macformer.check.outcomes import Recorder

        config.pluginmanager.register(Recorder(Path(file)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--only-theirs"):
        return
    from macformer.check.outcomes import variant_of

    general = [item for item in items if variant_of(item) is None]
    config.hook.pytest_deselected(items=general)
    items[:] = [item for item in items if item not in general]


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """Compose train.yaml; the same options give the same configuration, which nothing may change.

    ``folder`` names a folder of further configuration groups.
    """
    from omegaconf import OmegaConf

    from macformer.check.variants import OURS
    from macformer.runs.config import compose

    @cache
    def compose_once(*overrides: str, folder: Path | None = None) -> DictConfig:
        cfg = compose(*overrides, config_dirs=[] if folder in (None, OURS) else [folder])
        OmegaConf.set_readonly(cfg, True)
        return cfg

    return compose_once


@pytest.fixture(autouse=True)
def seed() -> None:
    import torch

    torch.manual_seed(0)
