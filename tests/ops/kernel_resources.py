"""Compile what the launchers of the Triton kernels ask for, and report what ptxas gives it.

`python tests/ops/kernel_resources.py bfloat16 32` prints a line of JSON for each kernel on sm_90.
It needs no GPU: launches stop where the compiled kernel would be sent to it.
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
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from macformer.ops import exponential_triton, fourier_triton, fused, maclaurin_triton

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
BATCH, HEADS, LENGTH, NUM_FEATURES = 2, 2, 1024, 128


class Hopper:
    """The part of a driver that compilation asks."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def feature_maps(query: torch.Tensor, key: torch.Tensor, padding: torch.Tensor):
    """Yield each map's name, and those of queries and keys, whose own kernels run on the way."""
    head_dim = query.shape[-1]
    widths = [NUM_FEATURES, 96, 16, 16]
    signs = torch.randn(1, head_dim, sum(widths)).sign()
    weights, constant = torch.ones(NUM_FEATURES), torch.ones(())
    yield "maclaurin", (maclaurin_triton.products(signs, widths, weights, constant),) * 2
    omega = torch.randn(HEADS, head_dim, NUM_FEATURES)
    yield "fourier", (fourier_triton.waves(omega, torch.zeros_like(omega)),) * 2
    peaks = exponential_triton.find_peaks(key, omega, padding)
    yield "exponential", exponential_triton.exponentials(query, omega, peaks)


def resources(compiled) -> dict[str, int]:
    """Return what a thread takes, and what a program does; memory is in bytes."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run(
                [CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    registers, stack = map(int, found.groups())
    return {
        "registers": registers,
        "stack": stack,
        "instructions": len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", code, re.MULTILINE)),
        "shared": compiled.metadata.shared,
        "threads": 32 * compiled.metadata.num_warps,
    }


def main(dtype: str, head_dim: str) -> None:
    launch, kernels = JITFunction.run, []

    def compile_only(kernel, *args, grid, warmup, **options):
        compiled = launch(kernel, *args, grid=grid, warmup=True, **options)
        kernels.append({"kernel": kernel.__name__, **resources(compiled)})

    driver.set_active(Hopper())
    JITFunction.run = compile_only
    shape = BATCH, HEADS, LENGTH, int(head_dim)
    inputs = [torch.randn(shape).to(getattr(torch, dtype)) for _ in range(3)]
    padding = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    options = {"key_padding_mask": padding, "eps": 1e-6}
    for name, (queries, keys) in feature_maps(*inputs[:2], padding):
        results = fused.fused_forward(*inputs, queries, keys, **options)
        fused.fused_backward(*inputs, queries, keys, inputs[2], *results, **options)
        for use in kernels:
            print(json.dumps({"features": name, **use}))
        kernels.clear()


if __name__ == "__main__":
    main(*sys.argv[1:])
