"""A pass that does not reach what was put in, or reaches it twice, raises."""

from functools import partial

import pytest
import torch
from torch import nn

from macformer.attention import SoftmaxAttention, UniformAttention
from macformer.dropin import DropinError, replace_attention, restore

LENGTH = 11
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)


class AroundAttention(nn.Module):
    """Compute attention from its module's weights, as a fused function may."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        projected = nn.functional.linear(
            x, self.attention.in_proj_weight, self.attention.in_proj_bias
        )
        return nn.functional.scaled_dot_product_attention(*projected.chunk(3, -1))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_model_that_goes_around_its_attention_raises(x, training, make_attention):
    model = AroundAttention(make_attention(batch_first=True)).train(training)
    replace_attention(model, UniformAttention, max_seq_len=LENGTH)
    with pytest.raises(DropinError, match="without the attention put into attention"):
        model(x)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_model_that_goes_around_its_attention_in_evaluation_alone_raises_there(
    x, mode, make_attention
):
    class FusedInEvaluation(AroundAttention):
        def forward(self, x):
            return self.attention(x, x, x)[0] if self.training else super().forward(x)

    model = FusedInEvaluation(make_attention(batch_first=True)).train()
    replace_attention(model, UniformAttention, max_seq_len=LENGTH)
    model(x)
    if mode == "eval":
        with pytest.raises(DropinError, match="without the attention put into attention"):
            model.eval()(x)
    else:
        model(x)


def test_an_encoder_that_is_asked_once_outside_of_its_model_is_reached(x, make_encoder):
    class Writer(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = make_encoder()

        def forward(self, x=None, states=None):
            return self.encoder(x) if states is None else states

    model = Writer().eval()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    states = model.encoder(x)
    model(states=states)
    model.train()
    model.encoder.eval()  # frozen
    model(x)


def test_nobody_watches_a_model_that_was_restored_as_a_part_of_another(x, make_encoder):
    model = nn.Sequential(make_encoder()).eval()
    expected = model(x)
    replace_attention(model[0], UniformAttention, max_seq_len=LENGTH)
    restore(model)
    torch.testing.assert_close(model(x), expected, atol=0, rtol=0)


def test_layers_left_out_by_chance_in_training_are_no_fault(x, make_encoder):
    class LayerDrop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = make_encoder().layers

        def forward(self, x):
            x = self.layers[0](x)
            return x if self.training else self.layers[1](x)

    model = LayerDrop()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    model(x)
    model.eval()(x)


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("rfa", {"overrides": ["attention.pool_size=2"]}),
        ("softmax", {"ppsbn": "with_batch"}),
    ],
    ids=["redraw", "statistics"],
)
def test_checkpointing_is_refused_around_what_changes_in_each_pass(x, row, options, make_encoder):
    model = make_encoder()
    replace_attention(model, row, max_seq_len=LENGTH, **options)
    model(x)
    model.gradient_checkpointing = True  # as models of transformers say it
    with pytest.raises(DropinError, match="checkpoints activations"):
        model(x)
    with pytest.raises(DropinError, match="checkpoints activations"):
        replace_attention(model, row, max_seq_len=LENGTH, **options)
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    model(x)
