"""The compiled step: the numbers of the eager one, in few enough launches on a GPU."""

import re
from types import SimpleNamespace
from typing import Any, cast

import jaxtyping
import pytest
import torch
from hydra.utils import instantiate
from torch._inductor import config as inductor
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import ForeachKernelSchedulerNode
from torch.utils._python_dispatch import TorchDispatchMode

from macformer.runs.build import build_model, build_run
from macformer.runs.config import compose
from macformer.training.step import Gradients, optimisation_step

pytestmark = pytest.mark.filterwarnings(  # the compiler's own
    "ignore:`torch.jit.script:DeprecationWarning",
    "ignore:Could not find an active CPU backend:UserWarning",
)

NUM_STEPS = 4
LAUNCHES_OF_AN_ATTENTION = 3  # either way: a sum over slices, one over those, and a kernel per tile


@pytest.fixture
def compiles(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["rmfa_exp", "softmax"])
def test_the_compiled_step_has_the_losses_of_the_eager_one(make_run, compiles, attention):
    """Without dropout, whose random numbers the compiler draws from elsewhere."""
    losses = []
    for step in ("eager", "compiled"):
        cfg, _ = make_run(
            f"attention={attention}", "ppsbn=with", "model.encoder.dropout=0.0", f"step={step}"
        )
        built = build_run(cfg)
        built.data.prepare_data()
        built.data.setup("fit")
        batch = next(iter(built.data.train_dataloader()))
        (optimizer,), (schedule,) = built.module.configure_optimizers()
        gradients = built.module._make_gradients(built.module.model, clip=built.module.clip)
        steps = [
            optimisation_step(gradients, batch, optimizer, schedule["scheduler"])
            for _ in range(NUM_STEPS)
        ]
        losses.append(torch.stack([loss for loss, *_ in steps]))
    assert losses[0].unique().numel() == NUM_STEPS
    # float32 sums in another order, four steps of 1e-3 on
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)


class Hopper:
    """The part of Triton's driver that the compiler asks."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0


class Ops(TorchDispatchMode):
    """Count what is dispatched: on a GPU a launch each."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


def group_as_on_a_gpu(scheduler):
    """Group kernels that do not wait for one another, which the compiler does for a GPU only."""
    most = 8  # its combo_kernel_max_num_nodes, where it has one
    return [
        nodes[first : first + most]
        for nodes in scheduler._topological_sort_nodes()
        for first in range(0, len(nodes), most)
    ]


@pytest.fixture
def written_code(compiles, monkeypatch):
    """Let the compiler write kernels for a GPU, and keep its programs in place of running them."""
    pytest.importorskip("triton")
    from triton.runtime import driver

    programs: list[str] = []

    def keep(graph):
        programs.append(graph.codegen()[0].value)
        (outputs,) = (node.args[0] for node in graph.module.graph.nodes if node.op == "output")
        values = [None if node is None else node.meta["val"] for node in outputs]

        def call(args):
            return [
                torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).zero_()
                if isinstance(x, torch.Tensor)
                else x
                for x in values
            ]

        return SimpleNamespace(call=call, __file__=__file__, key="", __name__="kept")

    grouping = ForeachKernelSchedulerNode.group_algorithm_for_combo_kernels
    monkeypatch.setattr(inductor, "cpu_backend", "triton")
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    monkeypatch.setattr("torch.utils._triton.triton_hash_with_backend", lambda: "")
    monkeypatch.setattr(GraphLowering, "compile_to_module", keep)
    active = driver._active
    driver.set_active(cast(Any, Hopper()))
    ForeachKernelSchedulerNode.set_group_algorithm_for_combo_kernels(group_as_on_a_gpu)
    yield programs
    ForeachKernelSchedulerNode.set_group_algorithm_for_combo_kernels(grouping)
    driver._active = active


@pytest.mark.slow
def test_a_step_of_listops_is_at_most_120_launches(written_code):
    """RMFA with ppSBN in bf16 at the sizes of its recipe: all that the CUDA graph holds.

    Forward and backward pass are counted in the compiler's programs: its kernels, matrix products
    by library calls, and those of the attention's operators. Clipping is not compiled. Outside the
    graph are three copies into its buffers, three of its results, and the optimiser.
    """
    cfg = compose("task=listops", "attention=rmfa_exp", "ppsbn=with", "step=compiled")
    model = build_model(cfg).train()
    length = cfg.padded_len
    mask = torch.arange(length) >= torch.randint(length // 2, length, (cfg.batch_size, 1))
    batch = {
        "inputs": torch.randint(1, cfg.task.vocab_size, mask.shape).masked_fill(mask, 0),
        "key_padding_mask": mask,
        "labels": torch.randint(cfg.task.num_classes, (cfg.batch_size,)),
    }
    clipping, clip = Ops(), instantiate(cfg.clip)

    def counted_clip(parameters):
        with clipping:
            return clip(parameters)

    compile = instantiate(cfg.step.gradients.compile)
    options = {"objective": instantiate(cfg.objective), "accumulate": 1, "compile": compile}
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        Gradients(model, clip=counted_clip, **options)(batch)
    assert len(written_code) == 2  # one program each way
    calls = [code[code.index("def call(") :] for code in written_code]
    kernels = sum(len(re.findall(r"\btriton_\w+\.run\(", code)) for code in calls)
    products = sum(len(re.findall(r"\bextern_kernels\.\w+\(", code)) for code in calls)
    attentions = sum(len(re.findall(r"torch\.ops\.macformer\.[\w.]+\(", code)) for code in calls)
    assert (products, attentions) == (30, 4)
    launches = kernels + products + LAUNCHES_OF_AN_ATTENTION * attentions + clipping.number
    assert launches <= 120, (kernels, products, attentions, clipping.number)
