"""Compile the Triton kernels for sm_90 without a GPU, and report what ptxas gives each of them.

`python tests/ops/kernel_resources.py bfloat16 32` prints a line of JSON for each kernel.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from macformer.ops import fourier_triton, fused, fused_kernels, maclaurin_triton

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
MAPS = {
    "maclaurin": (
        maclaurin_triton.products(torch.ones(2, 16, 48), [32, 16]),
        ("*fp32", "*i32", "i32", "i32", "i32"),
    ),
    "fourier": (fourier_triton.waves(torch.ones(2, 16, 32)), ("*fp32", "i32", "i32")),
}
QUERIES, KEYS = {"HAS_U": True, "HAS_PADDING": False}, {"HAS_U": False, "HAS_PADDING": True}
PASSES = {
    "state of keys": (fused_kernels.state_kernel, "state", KEYS),
    "state of queries": (fused_kernels.state_kernel, "state", QUERIES),
    "output": (fused_kernels.read_kernel, "read", {"HAS_PADDING": False, "DIVIDE": True}),
    "gradient of values": (
        fused_kernels.read_kernel,
        "read",
        {"HAS_PADDING": True, "DIVIDE": False},
    ),
    "gradient of queries": (fused_kernels.grad_kernel, "grad", QUERIES),
    "gradient of keys": (fused_kernels.grad_kernel, "grad", KEYS),
    "gradient of omega": (fourier_triton.omega_kernel, "omega", QUERIES),
}
FUNCTIONS = ("FEATURES", "PULL")


def resources(kernel, constants, options, parameters, dtype) -> dict[str, int]:
    """Return registers and stack per thread, and shared memory per program, in bytes."""
    pointer = "*bf16" if dtype == torch.bfloat16 else "*fp32"
    kinds = {"u": "*fp32", "padding": "*i1", "state": "*fp32", "total": "*fp32", "z": "*fp32"}
    kinds |= {"x": pointer, "y": pointer, "grad_x": pointer, "grad_omega": "*fp32"}
    kinds |= {"out": "*fp32" if constants.get("DIVIDE") else pointer, "eps": "fp32"}
    kinds |= {"parameters": parameters} | dict.fromkeys(constants, "constexpr")
    signature = {name: kinds.get(name, "i32") for name in kernel.arg_names}
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    aligned = [places[name] for name, kind in signature.items() if kind[0] == "*"]
    aligned += [(*places["parameters"], i) for i, kind in enumerate(parameters) if kind[0] == "*"]
    source = ASTSource(
        kernel,
        signature,
        {places[name]: value for name, value in constants.items()},
        {place: [["tt.divisibility", 16]] for place in aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [CUOBJDUMP, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    registers, stack = map(int, found.groups())
    return {"registers": registers, "stack": stack, "shared": compiled.metadata.shared}


def main(dtype: str, head_dim: str) -> None:
    x = torch.empty(1, 1, 1, int(head_dim), dtype=getattr(torch, dtype))
    for map_name, (feature_map, parameters) in MAPS.items():
        functions = {"FEATURES": feature_map.features, "PULL": feature_map.pull}
        for pass_name, (kernel, role, flags) in PASSES.items():
            if role == "omega" and map_name != "fourier":
                continue
            constants = fused.block_sizes(role, x, x.shape[-1]) | flags
            options = {
                "num_warps": constants.pop("num_warps"),
                "num_stages": feature_map.num_stages,
            }
            constants |= {k: functions[k] for k in FUNCTIONS if k in kernel.arg_names}
            use = resources(kernel, constants, options, parameters, x.dtype)
            print(json.dumps({"map": map_name, "pass": pass_name, **use}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
