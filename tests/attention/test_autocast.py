"""Every row under the rules of CUDA's autocast, which a CPU's are not: dtypes, and the chosen path.

With and without ppSBN; a stand-in knows the rules.
"""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from torch.utils._python_dispatch import TorchDispatchMode

import configs
from macformer.attention.contract import build
from macformer.check.suite.test_contract_device import AsOnCUDA
from macformer.ops import dispatch
from macformer.runs.config import compose

ROWS = sorted(p.stem for p in (Path(configs.__path__[0]) / "attention").glob("[!_]*.yaml"))
# Rows, or families of them, that Triton kernels compute on CUDA.
OPERATORS = {
    "performer": "exponential_attention",
    "performer_relu": None,
    "rfa": "fourier_attention",
    "rfa_arccos": None,
    "rmfa": "maclaurin_attention",
    "taylor": "taylor_attention",
}
BATCH, HEADS, LENGTH, DIM = 2, 2, 32, 32


class Choices(TorchDispatchMode):
    """Write down each of this project's operators that runs, and what keeps it from kernels."""

    def __init__(self):
        super().__init__()
        self.seen: dict[str, str | None] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "macformer":
            name = func._schema.name.removeprefix("macformer::")
            self.seen[name] = dispatch.why_not(*args[:3])
            assert {x.dtype for x in args[:3]} == {torch.bfloat16}, name
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("ppsbn", ["without", "with"])
@pytest.mark.parametrize("row", ROWS)
def test_kernels_take_what_autocast_leaves(row, ppsbn, masked):
    cfg = compose("task=listops", f"attention={row}", f"ppsbn={ppsbn}")
    factory = instantiate(cfg.mixer.attention)
    attention = build(factory, num_heads=HEADS, head_dim=DIM, max_seq_len=LENGTH).train()
    shape = BATCH, HEADS, LENGTH, DIM
    inputs = [torch.randn(shape).bfloat16().requires_grad_() for _ in range(3)]
    mask = torch.arange(LENGTH) >= torch.tensor([[LENGTH], [20]]) if masked else None
    with Choices() as choices:
        with AsOnCUDA(), torch.autocast("cpu", dtype=torch.bfloat16):
            out = attention(*inputs, key_padding_mask=mask)
        out.float().sum().backward()
    assert out.isfinite().all() and out.dtype in (torch.bfloat16, torch.float32)
    assert [reason for reason in choices.seen.values() if reason is not None] == []
    operator = OPERATORS.get(row if row in OPERATORS else row.split("_")[0])
    if operator is not None:
        assert {operator, f"{operator}_backward"} <= choices.seen.keys()
