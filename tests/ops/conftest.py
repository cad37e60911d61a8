"""Memory that was never written shows as NaN; kernels run where an interpreter can run them."""

import os

import pytest
import torch
import triton

# The interpreter of Triton before 3.8 cannot read scalars with NumPy from 2.4 on.
INTERPRETS = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INTERPRETS or os.environ.get("TRITON_INTERPRET") != "1":
        return
    skip = pytest.mark.skip(reason=f"the interpreter of triton {triton.__version__} is too old")
    for item in items:
        if "triton" in item.nodeid or item.name == "test_kernels_run_where_their_inputs_are":
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    """Fill what torch.empty and its kin return with NaN, so that an element left out is seen."""

    def poison(allocate):
        def allocate_nan(*args, **kwargs):
            tensor = allocate(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return allocate_nan

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poison(torch.Tensor.new_empty))
