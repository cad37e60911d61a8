"""Softmax that keeps away from the kernel that may return NaN, with tensors of no data."""

import ast
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend

import macformer
from macformer.ops import sdpa

ATTENTION = "scaled_dot_product_attention"
UNMASKED = {"ops/gaussian.py", "benchmark/peers.py", "attention/softmax.py"}  # or choose themselves


@pytest.mark.parametrize(
    ("device", "num_keys", "masked", "expected"),
    [
        ("cuda", 192, True, 1),
        ("cuda", 192, False, 0),
        ("cuda", 256, True, 0),
        ("cpu", 192, True, 0),
    ],
)
def test_half_a_block_of_masked_keys_is_kept_from_cudnn(
    monkeypatch, device, num_keys, masked, expected
):
    limits = []
    monkeypatch.setattr(
        sdpa, "sdpa_kernel", lambda kernels: limits.append(kernels) or nullcontext()
    )
    with FakeTensorMode():
        query = torch.empty(2, 2, 5, 8, device=device)
        key = torch.empty(2, 2, num_keys, 8, device=device)
        mask = torch.empty(2, 1, 1, num_keys, dtype=torch.bool, device=device) if masked else None
        assert sdpa.fused_attention(query, key, key, attn_mask=mask).shape == query.shape
    assert len(limits) == expected
    assert all(SDPBackend.CUDNN_ATTENTION not in kernels for kernels in limits)


def test_no_row_goes_to_torch_by_itself_with_a_mask():
    package = Path(macformer.__path__[0])
    callers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == ATTENTION
    }
    assert callers == UNMASKED | {"ops/sdpa.py"}
