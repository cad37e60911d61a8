"""One command for the whole paper, at its smallest size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import configs

SCRIPT = Path(__file__).parents[1] / "scripts" / "run_paper.sh"
STUDIES = {path.stem for path in (Path(configs.__path__[0]) / "study").glob("*.yaml")}


def run_paper(tmp_path, size: str, *arguments: str) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folders = {"MACFORMER_OUTPUTS": str(tmp_path / "outputs"), "MACFORMER_DATA": str(tmp_path)}
    environment = {**os.environ, "PATH": path, "SIZE": size, **folders}
    return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True)


def test_an_unknown_size_is_named(tmp_path):
    result = run_paper(tmp_path, "huge")
    assert result.returncode == 2
    assert result.stderr == "SIZE is huge; allowed are smoke, table, full\n"


@pytest.mark.parametrize("argument", ["sweep=mine", "++sweep=mine", "paths.output_dir=elsewhere"])
def test_a_sweep_in_another_folder_than_the_one_priced_is_refused(tmp_path, argument):
    result = run_paper(tmp_path, "smoke", "seed=0", argument)
    assert result.returncode == 2 and not (tmp_path / "outputs").exists()
    message = "the folder of the sweep follows from SIZE and MACFORMER_OUTPUTS"
    assert result.stderr == f"{argument}: {message}\n"


@pytest.mark.slow
def test_the_smallest_paper_is_complete(tmp_path):
    result = run_paper(tmp_path, "smoke")
    assert result.returncode == 0, result.stderr[-2000:]
    outputs = tmp_path / "outputs"
    assert "failed" not in (outputs / "paper_smoke" / "table.md").read_text()
    assert len(STUDIES) >= 4
    for name in STUDIES:
        made = {path.name for path in (outputs / "studies" / f"{name}-smoke").iterdir()}
        assert made >= {"rows.csv", "config.yaml", "table.md", "plot.png", "plot.svg"}, name
