"""The built wheel works from any folder: code, configurations and data files are in it."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Build the wheel and install it, without its dependencies, into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(ROOT), "-w", folder]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("macformer-*.whl")
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
    subprocess.run([*install, wheel], check=True)
    return target


def call(site: Path, cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}  # before the source tree
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_wheel_trains_a_cell_and_makes_its_table(installed, tmp_path):
    origin = call(installed, tmp_path, "-c", "import macformer; print(macformer.__file__)")
    assert Path(origin.strip()).is_relative_to(installed)
    options = ("task=listops_short", "recipe=smoke", "attention=rmfa_exp", "ppsbn=with")
    out = call(
        installed, tmp_path, "-m", "macformer.train", *options, "+debug=fast", "logger=curve"
    )
    assert "test accuracy" in out
    (metrics,) = tmp_path.glob("outputs/debug/*/metrics.json")
    assert metrics.parent.joinpath("checkpoints", "last.ckpt").exists()
    table = "import sys; from macformer.tables import main; sys.exit(main(['outputs/debug']))"
    assert "rmfa_exp + ppSBN" in call(installed, tmp_path, "-c", table)


@pytest.mark.slow
def test_wheel_checks_a_variant(installed, tmp_path):
    """The suite of the contract is in the wheel, and needs nothing of the source tree."""
    (tmp_path / "mine" / "attention").mkdir(parents=True)
    variant = tmp_path / "mine" / "attention" / "again.yaml"
    variant.write_text("defaults: [softmax, _self_]\n")
    tiny = ("task.num_examples={train: 512, validation: 20, test: 40}", "task.max_len=40")
    command = ("-m", "macformer.check.cli", "mine", "--steps", "8", "batch_size=8", *tiny)
    row = call(installed, tmp_path, *command).strip().splitlines()[-1]
    passed, total = re.search(r"\| attention/again \| (\d+)/(\d+) ", row).groups()
    assert passed == total and int(total) > 20 and row.endswith("| sound     |")


def test_every_command_can_be_imported():
    commands = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert len(commands) == 11
    for name, target in commands.items():
        module, _, function = target.partition(":")
        assert name.startswith("macformer-")
        assert callable(getattr(importlib.import_module(module), function))
