"""Options and environment shared by every test."""

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--attention-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="hold the attention variants in DIR/attention/*.yaml to the contract, too",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests with a ``variant`` argument each YAML of configs/attention and of the option."""
    if "variant" not in metafunc.fixturenames:
        return
    import configs

    folders = [Path(configs.__path__[0]), *map(Path, metafunc.config.getoption("--attention-dir"))]
    variants = []
    for folder in folders:
        found = sorted((folder / "attention").glob("[!_]*.yaml"))
        if not found:
            raise pytest.UsageError(f"no attention variants in {folder / 'attention'}")
        variants += [(folder.resolve(), path.stem) for path in found]
    metafunc.parametrize("variant", variants, ids=[name for _, name in variants], scope="module")
