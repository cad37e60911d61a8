"""Hold a folder's variants to the contract, by the suite in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from macformer.check import suite
from macformer.check.outcomes import Outcome, read_outcomes

SUITE = Path(suite.__path__[0])
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}  # nothing of the caller's own


class SuiteError(RuntimeError):
    """The suite did not run to its end."""


def hold_to_contract(folder: Path) -> list[Outcome]:
    """Try every property of the contract on each variant of a folder.

    Raises:
        SuiteError: If the suite did not run to its end.
    """
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "outcomes.json"
        command = [sys.executable, "-m", "pytest", str(SUITE), "-c", os.devnull]
        command += [f"--rootdir={SUITE}", "--import-mode=importlib", "-m", "not slow"]
        command += ["-p", "macformer.check.plugin", "-p", "no:cacheprovider", "-q", "--tb=short"]
        command += ["--config-dir", str(folder), "--only-theirs", "--outcomes", str(file)]
        run = subprocess.run(command, env=os.environ | ALONE, capture_output=True, text=True)
        if not file.exists() or run.returncode not in (0, 1):
            last = (run.stdout + run.stderr).strip().splitlines()[-3:]
            raise SuiteError(f"pytest ended with exit code {run.returncode}: {' '.join(last)}")
        return read_outcomes(file)
