"""Ahead-of-time compilation of the Triton kernels for sm_90, without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROGRAM = Path(__file__).parent / "kernel_resources.py"
SHARED_MEMORY = 227 * 1024  # bytes that one program may use on an H100 or H200


# float16 with heads of 128 is left out: Fourier features, converted to float32 there, do spill.
CASES = [(dim, dtype) for dtype in ("bfloat16", "float32", "float16") for dim in (16, 32, 64, 128)]


@pytest.mark.slow
@pytest.mark.parametrize(("head_dim", "dtype"), CASES[:-1])
def test_no_spills(head_dim, dtype, record_property):
    """Registers of sm_90 hold everything: no kernel has a stack.

    The number of features and the lengths are loops of run time, for which nothing is compiled.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_DEFAULT_FP_FUSION": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(PROGRAM), dtype, str(head_dim)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    kernels = [json.loads(line) for line in result.stdout.splitlines()]
    # Two forward and four backward of three maps, twice the gradient at omega, and two for shifts.
    assert len(kernels) == 22
    for i, use in enumerate(kernels):
        record_property(f"{i} {use['features']} {use['kernel']}", json.dumps(use))
    assert [use for use in kernels if use["stack"] or use["shared"] > SHARED_MEMORY] == []
