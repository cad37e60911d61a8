"""Which inputs reach the Triton kernels, and what is said of others, with tensors of no data."""

import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from macformer.ops import dispatch, tiling

SHAPE = (2, 3, 11, 8)


@pytest.fixture(autouse=True)
def unwarned():
    dispatch._warn_once.cache_clear()


def draw_fakes(dtypes, *, shape=SHAPE, device="cuda"):
    with FakeTensorMode(allow_non_fake_inputs=True):
        return [torch.empty(shape, dtype=dtype, device=device) for dtype in dtypes]


def reasons(name, *inputs) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert not dispatch.takes_kernels(name, *inputs)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernels_take_one_dtype_on_cuda(dtype):
    assert dispatch.takes_kernels("attention", *draw_fakes([dtype] * 3))


@pytest.mark.parametrize(
    ("dtypes", "shape", "reason"),
    [
        ([torch.float64] * 3, SHAPE, "no float64"),
        ([torch.float32, torch.float32, torch.bfloat16], SHAPE, "float32, torch.bfloat16"),
        ([torch.float32] * 3, (1, 1, 5, 129), "a head of 129 is wider than 128"),
        ([torch.float32] * 3, (1, 1, 524_273, 8), "524273 queries and 524273 keys are more"),
    ],
    ids=["float64", "mixed", "wide", "long"],
)
def test_a_fallback_on_cuda_is_named_once(dtypes, shape, reason):
    inputs = draw_fakes(dtypes, shape=shape)
    (message,) = reasons("attention", *inputs)
    assert message.startswith("attention runs as tiles of plain torch") and reason in message
    assert reasons("attention", *inputs) == []
    assert len(reasons("another", *inputs)) == 1


def test_tiles_on_a_cpu_are_no_fallback():
    assert reasons("attention", *draw_fakes([torch.float64] * 3, device="cpu")) == []


def test_tiles_on_cuda_do_not_wait_for_the_device():
    """A tensor of no data raises where its values are asked for."""
    key, *_ = draw_fakes([torch.float32])
    with FakeTensorMode(allow_non_fake_inputs=True):
        mask = torch.empty(2, 11, dtype=torch.bool, device="cuda")
        assert tiling.key_lengths(key, mask) == [11, 11]
