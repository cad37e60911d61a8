"""Options, seeds and environment shared by every test."""

import os
from pathlib import Path

import pytest
import torch

import configs

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported

OURS = Path(configs.__path__[0]).resolve()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--attention-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="hold the attention variants in DIR/attention/*.yaml to the contract, too",
    )
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="record the losses of tests/golden anew, with one process",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests with a ``variant`` argument each YAML of configs/attention and of the option."""
    if "variant" in metafunc.fixturenames:
        found = _find_variants(metafunc.config)
        names = [name for _, name in found]
        metafunc.parametrize("variant", found, ids=names, scope="module")


@pytest.fixture(scope="session")
def variants(request) -> list[tuple[Path, str]]:
    return _find_variants(request.config)


def _find_variants(config: pytest.Config) -> list[tuple[Path, str]]:
    variants = _rows(OURS)
    for option in config.getoption("--attention-dir"):
        folder = Path(option).resolve()
        found = _rows(folder.parent if folder.name == "attention" else folder)
        hidden = {name for _, name in found} & {name for _, name in variants}
        if not found or hidden:
            reason = f"{sorted(hidden)} exist already" if hidden else "no attention/*.yaml there"
            raise pytest.UsageError(f"--attention-dir {option}: {reason}")
        variants += found
    return variants


def _rows(folder: Path) -> list[tuple[Path, str]]:
    """Find the rows in a folder of configuration groups; names with _ in front are bases."""
    return [(folder, path.stem) for path in sorted((folder / "attention").glob("[!_]*.yaml"))]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
