"""Ahead-of-time compilation of the Triton kernels for sm_90, without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROGRAM = """
import json, re, subprocess, sys, tempfile
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from macformer.ops import maclaurin_kernels as kernels
from macformer.ops.maclaurin_triton import _blocks

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
FLOATS = {"u", "signs", "state", "total", "out", "z"}
KERNELS = {
    "state of keys": (kernels.state_kernel, {"HAS_U": False, "HAS_PADDING": True}),
    "state of queries": (kernels.state_kernel, {"HAS_U": True, "HAS_PADDING": False}),
    "out": (kernels.out_kernel, {}),
    "grad of queries": (
        kernels.grad_kernel, {"HAS_U": True, "HAS_PADDING": False, "GRAD_Y": False}
    ),
    "grad of keys": (kernels.grad_kernel, {"HAS_U": False, "HAS_PADDING": True, "GRAD_Y": True}),
}


def kind(name, fixed, dtype):
    if name in fixed:
        return "constexpr"
    if name in FLOATS:
        return "*fp32"
    others = {"padding": "*i1", "table": "*i32", "eps": "fp32"}
    return others.get(name, dtype if name in {"x", "y", "grad_x", "grad_y"} else "i32")


def resources(kernel, flags, x):
    blocks = _blocks(x, x.shape[-1])
    warps = blocks.pop("num_warps")
    fixed = blocks | flags
    dtype = "*bf16" if x.dtype == torch.bfloat16 else "*fp32"
    signature = {name: kind(name, fixed, dtype) for name in kernel.arg_names}
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    constants = {places[name]: value for name, value in fixed.items()}
    aligned = {
        places[name]: [["tt.divisibility", 16]] for name in signature if signature[name][0] == "*"
    }
    source = ASTSource(kernel, signature, constants, aligned)
    target = GPUTarget("cuda", 90, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [TOOLS / "cuobjdump", "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, re.search(r"REG:(\\d+) STACK:(\\d+)", usage).groups())
    return {"registers": registers, "stack": stack, "shared": compiled.metadata.shared}


x = torch.empty(1, 1, 1, int(sys.argv[1]), dtype=getattr(torch, sys.argv[2]))
print(json.dumps({name: resources(*kernel, x) for name, kernel in KERNELS.items()}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head_dim", "dtype"), [(32, "bfloat16"), (64, "bfloat16"), (32, "float32")]
)
def test_no_spills(head_dim, dtype, record_property):
    """Registers of sm_90 hold everything: no kernel has a stack, at the sizes of the recipes."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_DEFAULT_FP_FUSION": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM, str(head_dim), dtype]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    resources = json.loads(result.stdout.splitlines()[-1])
    assert len(resources) == 5
    for name, use in resources.items():
        record_property(name, str(use))
        print(head_dim, dtype, name, use)
        assert use["stack"] == 0, name
