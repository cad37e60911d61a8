"""Attention transfer: what was put in learns softmax's answers, and nothing else moves."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from macformer.attention import (
    InputScale,
    KernelizedAttention,
    SoftmaxAttention,
    UniformAttention,
    kernels,
)
from macformer.dropin import DropinError, replace_attention, transfer_attention
from macformer.dropin.observe import answered
from macformer.runs.config import compose

DIM, HEADS, BATCH, LENGTH = 12, 2, 5, 11
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)
# Softmax itself, once the scale of each head has been learnt to be one.
SCALED = partial(
    KernelizedAttention,
    kernel=kernels.exp(),
    input_norm=None,
    guard=None,
    scale=partial(InputScale, unit_dot=0.1),
)


class Classifier(nn.Module):
    """Two layers of torch's, and a head on the mean of what is present."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(DIM, 3)
        with torch.no_grad():
            for parameter in self.encoder.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(2)

    def forward(self, inputs: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        states = self.encoder(inputs, src_key_padding_mask=key_padding_mask)
        if key_padding_mask is not None:
            states = states.masked_fill(key_padding_mask[..., None], 0)
        return self.head(states.sum(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    mask[0, 7:] = mask[2, 4:] = True
    return {
        "inputs": torch.randn(BATCH, LENGTH, DIM, generator=generator),
        "key_padding_mask": mask,
        "labels": torch.randint(3, (BATCH,), generator=generator),
    }


def put_in(model: nn.Module, attention) -> None:
    replace_attention(model, attention, max_seq_len=LENGTH)


@pytest.mark.parametrize(
    ("attention", "loss"), [(SOFTMAX, 0.0), (UniformAttention, 2.0)], ids=["softmax", "uniform"]
)
def test_softmax_has_no_error_and_the_mean_of_the_values_that_of_each_layer(
    model, batch, attention, loss
):
    put_in(model.eval(), attention)
    with torch.no_grad():
        result = transfer_attention(model, batch)
    assert float(result.loss) == pytest.approx(loss, abs=1e-6)


def test_padding_counts_nowhere(model, batch):
    put_in(model, SCALED)
    losses = []
    for garbage in (0.0, 1e3):
        mask = batch["key_padding_mask"][..., None]
        inputs = torch.where(mask, garbage, batch["inputs"])
        losses.append(transfer_attention(model, {**batch, "inputs": inputs}).loss)
    torch.testing.assert_close(losses[0], losses[1])


def test_rows_without_a_mask_are_full(model, batch):
    put_in(model.eval(), SCALED)
    full = {**batch, "key_padding_mask": torch.zeros_like(batch["key_padding_mask"])}
    bare = {name: batch[name] for name in ("inputs", "labels")}
    losses = [transfer_attention(model, rows).loss for rows in (full, bare)]
    torch.testing.assert_close(losses[0], losses[1])


def test_only_what_was_put_in_learns(model, batch):
    put_in(model, SCALED)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = transfer_attention(model, batch).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.1 and losses[-1] < 1e-3
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != ("macformer" in name), name


def test_layers_learn_from_the_activations_of_the_model_itself(model, batch):
    """Softmax answers: the second layer sees what it saw before the first was replaced."""
    seen: list[Tensor] = []
    expected: list[Tensor] = []

    def record(into):
        return lambda call: (into.append(call.query), call.by(call.attention))[1]

    put_in(model.eval(), SOFTMAX)
    with torch.no_grad(), answered(record(expected)):
        model(batch["inputs"], batch["key_padding_mask"])
    put_in(model, UniformAttention)
    hooks = [
        layer.self_attn.macformer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        for layer in model.encoder.layers
    ]
    with torch.no_grad():
        transfer_attention(model.train(), batch)
    assert len(hooks) == len(seen) == len(expected)
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize("training", [True, False], ids=["softmax", "new"])
def test_predictions_in_training_are_those_of_softmax(model, batch, training):
    """In evaluation they are those of the new attention."""
    put_in(model.eval(), SOFTMAX)
    with torch.no_grad():  # so that no class is that of every example
        model.head.bias -= model(batch["inputs"], batch["key_padding_mask"]).mean(0)
    labels = model(batch["inputs"], batch["key_padding_mask"]).argmax(-1)
    put_in(model, UniformAttention)
    new = model(batch["inputs"], batch["key_padding_mask"]).argmax(-1)
    assert (new != labels).any()
    with torch.no_grad():
        result = transfer_attention(model.train(training), {**batch, "labels": labels})
    assert int(result.num_correct) == (BATCH if training else int((new == labels).sum()))


def test_one_prediction_is_made_for_a_batch(model, batch):
    """A test of a run collects what the model returns, and counts on one result for each batch."""
    put_in(model.eval(), UniformAttention)
    calls = []
    model.register_forward_hook(lambda *args: calls.append(args))
    with torch.no_grad():
        transfer_attention(model, batch)
    assert len(calls) == 1


def test_what_cannot_be_transferred_is_refused(model, batch):
    with pytest.raises(DropinError, match="no attention of this project"):
        transfer_attention(model, batch)
    put_in(model, UniformAttention)
    with pytest.raises(DropinError, match="nothing to learn"):
        transfer_attention(model, batch)


def test_the_experiment_selects_by_the_error():
    cfg = compose("experiment=transfer", "model.path=somewhere", "task=text", "attention=linear")
    assert cfg.objective._target_ == "macformer.dropin.transfer_attention"
    assert (cfg.callbacks.best.monitor, cfg.callbacks.best.mode) == ("val/loss", "min")
    assert (cfg.scheduler.max_steps, cfg.optimizer.lr) == (300, 0.002)
