"""The feeding benchmark runs on prepared data and says how much faster feeding is than training."""

import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_feeding.py"


@pytest.mark.slow
def test_feeding_is_much_faster_than_a_softmax_step(tmp_path, capsys):
    runpy.run_path(str(SCRIPT))["main"](
        [
            "task=listops_short",
            "recipe=smoke",
            "task.num_examples={train: 2000, validation: 100, test: 100}",
            f"paths.data_dir={tmp_path}",
        ]
    )
    caption, _, *lines = capsys.readouterr().out.strip().splitlines()
    assert caption.startswith("listops")
    ratios = {cells[1].strip(): cells[4].strip() for cells in (line.split("|") for line in lines)}
    assert float(ratios["memory-mapped"].replace(",", "")) >= 20
    # What is called the device's is measured there; on the CPU nothing is.
    assert ("device-resident" in ratios) == torch.cuda.is_available()
