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


REGISTERS = 64 * 1024  # that the threads of a multiprocessor share

# Heads of 128 but for bfloat16 are left out: what is converted to float32 there does spill.
CASES = [(dim, "bfloat16") for dim in (16, 32, 64, 128)]
CASES += [(dim, dtype) for dtype in ("float32", "float16") for dim in (16, 32, 64)]


def compile_kernels(dtype: str, head_dim: int) -> list[dict]:
    """Return what each launch of a forward and a backward pass takes on sm_90."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_DEFAULT_FP_FUSION": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(PROGRAM), dtype, str(head_dim)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(("head_dim", "dtype"), CASES)
def test_no_spills(head_dim, dtype, record_property):
    """Registers of sm_90 hold everything, and a multiprocessor holds a program: none has a stack.

    Lengths are loops of run time, for which nothing is compiled.
    """
    kernels = compile_kernels(dtype, head_dim)
    # Three forward and three backward of three maps, twice the gradient at omega, two for shifts.
    assert len(kernels) == 22
    for i, use in enumerate(kernels):
        record_property(f"{i} {use['features']} {use['kernel']}", json.dumps(use))
    assert [use for use in kernels if use["stack"] or use["shared"] > SHARED_MEMORY] == []
    assert [use for use in kernels if use["registers"] * use["threads"] > REGISTERS] == []
