"""The contract of every attention on a device: no waiting, one precision, and what it reports.

What happens inside this project's ops on a GPU is held by the tests of the ops. Here an op is one
call, whose operands must be such that its kernels take them.
"""

import copy

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

MASK = torch.arange(13) >= torch.tensor([[13], [11]])

# Ops that wait for a device although tensors without data let them pass: they look at a result to
# choose a shape or to raise.
WAITING = {
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_svd",
    "_unique2",
    "bincount",
    "cholesky",
    "histc",
    "linalg_cholesky",
    "linalg_inv",
    "linalg_lstsq",
    "linalg_pinv",
    "linalg_qr",
    "linalg_solve",
    "multinomial",
    "unique_consecutive",
    "unique_dim",
}


class NoWaiting(TorchDispatchMode):
    """Refuse what stops a device until the host has seen a result."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if name in WAITING:
            raise RuntimeError(f"{name} waits for the device")
        if name in ("index", "index_put", "_index_put_impl"):
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
                raise RuntimeError(f"{name} with a boolean index waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_nothing_waits_for_the_device(subject, mode):
    """A CUDA graph holds no .item(), nonzero() or boolean index: tensors without data show them."""
    attention = copy.deepcopy(subject.attention).train(mode == "training")
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, NoWaiting():
        state = {
            name: fake.from_tensor(x.detach()).requires_grad_(x.requires_grad)
            for name, x in [*attention.named_parameters(), *attention.named_buffers()]
        }
        for query_len in subject.query_lengths:
            inputs = [fake.from_tensor(x).requires_grad_() for x in subject.draw(query_len)]
            mask = fake.from_tensor(MASK)
            out = functional_call(attention, state, tuple(inputs), {"key_padding_mask": mask})
            out.sum().backward()


# Functions that CUDA's autocast computes in float32, and the CPU's in the dtype that they are given
# (https://docs.pytorch.org/docs/stable/amp.html, "CUDA Ops that can autocast to float32").
WIDENED = [
    "acos",
    "asin",
    "cosh",
    "cdist",
    "cosine_similarity",
    "cumprod",
    "cumsum",
    "dist",
    "erfinv",
    "exp",
    "expm1",
    "group_norm",
    "layer_norm",
    "log",
    "log10",
    "log1p",
    "log2",
    "log_softmax",
    "logsumexp",
    "norm",
    "normalize",
    "pow",
    "prod",
    "reciprocal",
    "renorm",
    "rsqrt",
    "rtruediv",
    "sinh",
    "softmax",
    "softmin",
    "softplus",
    "sum",
    "tan",
    "vector_norm",
    "matrix_norm",
]


class AsOnCUDA(TorchFunctionMode):
    """Stand in for the rules of CUDA's autocast, on the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_").removeprefix("linalg_")
        if name in WIDENED and torch.is_autocast_enabled("cpu"):
            args = [widen(x) for x in args]
            kwargs = {key: widen(x) for key, x in kwargs.items()}
        return func(*args, **kwargs)


def widen(x):
    half = isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if half else x


class Operands(TorchDispatchMode):
    """Write down the dtypes of query, key and value of each of this project's ops."""

    def __init__(self):
        super().__init__()
        self.dtypes: list[tuple[torch.dtype, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "macformer":
            self.dtypes.append(tuple(x.dtype for x in args[:3]))
        return func(*args, **(kwargs or {}))


def test_ops_receive_one_dtype_under_autocast(subject):
    """Kernels take queries, keys and values of one dtype; what widens one of them loses them."""
    attention = copy.deepcopy(subject.attention).float().train()
    inputs = [x.bfloat16().requires_grad_() for x in subject.draw(13)]
    with Operands() as seen, AsOnCUDA(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(*inputs, key_padding_mask=MASK)
    out.float().sum().backward()
    assert out.isfinite().all() and out.dtype in (torch.bfloat16, torch.float32)
    assert all(x.grad is None or x.grad.isfinite().all() for x in inputs)
    assert set(seen.dtypes) <= {(torch.bfloat16,) * 3}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_needs_no_autocast(subject, dtype):
    if not subject.is_ours:
        pytest.skip("asked of the rows of this project alone")
    torch.manual_seed(1)  # of draws in which rounding moves no token over the edge of a bucket
    attention = copy.deepcopy(subject.attention).float()
    inputs = [x.to(dtype) for x in subject.draw(13)]
    out = attention(*inputs, key_padding_mask=MASK)
    expected = subject.attention(*(x.double() for x in inputs), key_padding_mask=MASK)
    assert out.isfinite().all()
    assert (out - expected).norm() < 0.2 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32], ids=str)
def test_a_mask_that_is_not_boolean_is_refused_or_read_as_one(subject, dtype, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would refuse it itself
    if not subject.is_ours:
        pytest.skip("asked of the rows of this project alone")
    inputs = subject.draw(13)
    expected = subject.attention(*inputs, key_padding_mask=MASK)
    try:
        out = subject.attention(*inputs, key_padding_mask=MASK.to(dtype))
    except ValueError as error:
        assert str(dtype) in str(error) and "bool" in str(error)
    else:
        assert_close(out, expected)


def test_diagnostics_are_scalars_of_the_last_pass(subject):
    attention = copy.deepcopy(subject.attention)
    parts = [part for part in attention.modules() if hasattr(part, "diagnostics")]
    if not parts:
        pytest.skip("has no diagnostics")
    attention(*subject.draw(13), key_padding_mask=MASK)
    for name, value in (item for part in parts for item in part.diagnostics().items()):
        assert name.isidentifier()
        assert value.ndim == 0 and not value.requires_grad and value.isfinite()


@pytest.mark.slow
def test_compiles(subject, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    torch.compiler.reset()
    attention, inputs = copy.deepcopy(subject.attention), subject.draw(13)
    compiled = torch.compile(attention, backend="aot_eager")
    out = attention(*inputs, key_padding_mask=MASK)
    assert_close(compiled(*inputs, key_padding_mask=MASK), out)
