"""Autocast, the fused optimiser and compilation, each by itself and together."""

from functools import partial

import jaxtyping
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.runs.build import build_run
from macformer.training.objectives import classify
from macformer.training.step import Gradients, optimisation_step

PLAIN = {"objective": classify, "accumulate": 1, "clip": None, "compile": None}


def build_with_batch(cfg):
    built = build_run(cfg)
    built.data.prepare_data()
    built.data.setup()
    return built, next(iter(built.data.train_dataloader()))


def rewind_pools(model):
    """Draw the features of the first training step again."""
    for name, buffer in model.named_buffers():
        if name.endswith("pool_index"):
            buffer.zero_()


class AutocastSpy(torch.autograd.Function):
    seen: list[bool] = []  # noqa: RUF012 - one spy at a time

    @staticmethod
    def forward(ctx, x):
        AutocastSpy.seen.append(torch.is_autocast_enabled("cpu"))
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        AutocastSpy.seen.append(torch.is_autocast_enabled("cpu"))
        return grad


class Spied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, inputs, key_padding_mask):
        return AutocastSpy.apply(self.layer(inputs.float()))


def test_the_forward_pass_alone_is_cast():
    AutocastSpy.seen.clear()
    model = Spied()
    batch = {
        "inputs": torch.tensor([[1, 2, 3], [4, 5, 6]]),
        "key_padding_mask": torch.zeros(2, 3, dtype=torch.bool),
        "labels": torch.tensor([0, 1]),
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, *_ = Gradients(model, **PLAIN)(batch)
    assert AutocastSpy.seen == [True, False]
    assert loss.dtype == model.layer.weight.grad.dtype == torch.float32
    # the products were bf16: the logits are multiples of its spacing
    logits = model.layer.bfloat16()(batch["inputs"].bfloat16()).float()
    assert_close(loss, nn.functional.cross_entropy(logits, batch["labels"]))


def test_a_step_casts_the_weights_of_the_step_before(make_run):
    """Several steps share one autocast context, which remembers what it has cast."""
    cfg, _ = make_run("model.encoder.dropout=0.0")
    weights = []
    for num_contexts in (4, 1):
        built, batch = build_with_batch(cfg)
        (optimizer,), (schedule,) = built.module.configure_optimizers()
        gradients = Gradients(built.module.model, **PLAIN)
        for _ in range(num_contexts):
            with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=True):
                for _ in range(4 // num_contexts):
                    optimisation_step(gradients, batch, optimizer, schedule["scheduler"])
        weights.append(torch.cat([p.detach().flatten() for p in built.module.model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    "attention",
    ["rmfa_exp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("softmax", "rfa"))],
)
def test_bf16_gradients_point_the_same_way(make_run, attention):
    cfg, _ = make_run(f"attention={attention}", "ppsbn=with", "model.encoder.dropout=0.0")
    built, batch = build_with_batch(cfg)
    grads = []
    for enabled in (False, True):
        rewind_pools(built.module.model)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            Gradients(built.module.model, **PLAIN)(batch)
        grads.append(torch.cat([p.grad.flatten() for p in built.module.model.parameters()]))
    assert not torch.equal(*grads)
    # bf16 keeps 8 bits, and features multiply several such numbers: a tenth of the norm at worst
    assert torch.cosine_similarity(*grads, dim=0) > 0.99


def test_precision_is_a_switch_of_the_trainer(make_run):
    weights = []
    for precision in ("32-true", "bf16-mixed"):
        cfg, _ = make_run(
            "max_steps=2", "model.encoder.dropout=0.0", f"trainer.precision={precision}"
        )
        built = build_run(cfg)
        built.trainer.fit(built.module, built.data)
        weights.append(built.module.model.encoder.embedding.table.weight)
    assert weights[1].dtype == torch.float32
    assert not torch.equal(*weights)


def test_scaled_losses_are_refused(make_run):
    cfg, _ = make_run()
    built = build_run(cfg)
    built.trainer.strategy.precision_plugin.scaler = object()
    module = built.module
    module.trainer = built.trainer
    with pytest.raises(ValueError, match="which scales the loss; use bf16-mixed"):
        module.on_train_start()


def test_fused_adam_takes_the_steps_of_the_default(make_run):
    """One cycle moves the rate and Adam's beta_1 at every step."""
    weights = []
    for fused in ("null", "true"):
        cfg, _ = make_run("model.encoder.dropout=0.0", f"step.fused={fused}")
        built, batch = build_with_batch(cfg)
        (optimizer,), (schedule,) = built.module.configure_optimizers()
        gradients = Gradients(built.module.model, **PLAIN)
        for _ in range(4):
            optimisation_step(gradients, batch, optimizer, schedule["scheduler"])
        weights.append(torch.cat([p.detach().flatten() for p in built.module.model.parameters()]))
    assert optimizer.defaults["fused"] is True
    # 4 steps at 1e-3, in another order of float32 operations
    assert_close(*weights, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "op"),
    [("rmfa_exp", "macformer.maclaurin_attention"), ("rfa", "macformer.fourier_attention")],
)
def test_model_and_loss_compile_to_one_graph(make_run, monkeypatch, attention, op):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    torch.compiler.reset()
    cfg, _ = make_run(f"attention={attention}", "ppsbn=with", "model.encoder.dropout=0.0")
    built, batch = build_with_batch(cfg)
    graphs = []

    def keep(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    results = []
    for compile in (None, partial(torch.compile, backend=keep, fullgraph=True)):
        rewind_pools(built.module.model)
        loss, num_correct, _ = Gradients(built.module.model, **PLAIN | {"compile": compile})(batch)
        grads = {n: p.grad.clone() for n, p in built.module.model.named_parameters()}
        results.append((loss, num_correct, grads))
    assert len(graphs) == 1
    assert graphs[0].count(op) == 2  # one for each layer
    assert_close(results[1], results[0])
