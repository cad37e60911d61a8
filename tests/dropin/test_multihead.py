"""Attention in models of torch: what is replaced computes the same, and comes back."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from macformer.attention import SoftmaxAttention, UniformAttention
from macformer.dropin import DropinError, replace_attention, restore
from macformer.dropin.reached import stop_watching

DIM, BATCH, LENGTH = 12, 3, 11
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)
CLOSE = {"atol": 2e-5, "rtol": 1e-4}  # fused and unfused sums in float32
APART = 0.1  # what another attention changes at least in these models

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


class Counting(SoftmaxAttention):
    """Softmax that counts its calls."""

    calls = 0

    def forward(self, *args, **kwargs):
        Counting.calls += 1
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["BLD", "LBD"])
def test_softmax_in_the_place_of_attention_changes_nothing(
    x, padding, batch_first, training, make_attention
):
    model = make_attention(batch_first=batch_first).train(training)
    inputs = [x if batch_first else x.transpose(0, 1)] * 3
    with torch.no_grad():
        expected, _ = model(*inputs, key_padding_mask=padding)
        replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
        out, weights = model(*inputs, key_padding_mask=padding)
        replace_attention(model, UniformAttention, max_seq_len=LENGTH)
        uniform, _ = model(*inputs, key_padding_mask=padding)
    torch.testing.assert_close(out, expected, **CLOSE)
    assert weights is None
    assert (uniform - expected).abs().max() > APART


@pytest.mark.parametrize("batched", [True, False])
def test_values_may_be_another_tensor_of_the_same_tokens(x, padding, batched, make_attention):
    """Detectors add positions to queries and keys alone."""
    model = make_attention(batch_first=True)
    value, padding = (x, padding) if batched else (x[0], padding[0])
    moved = value + torch.randn(LENGTH, DIM)
    expected, _ = model(moved, moved, value, key_padding_mask=padding)
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    out, _ = model(moved, moved, value, key_padding_mask=padding)
    torch.testing.assert_close(out, expected, **CLOSE)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_an_encoder_in_evaluation_calls_what_was_put_in(x, padding, grad, watched, make_encoder):
    """There torch computes a layer from its weights in one function, and nests padded batches.

    It would not, for the hooks of those who watch; but they are not what a result may hang on.
    """
    model = make_encoder().eval()
    with torch.set_grad_enabled(grad):
        expected = model(x, src_key_padding_mask=padding)
        Counting.calls = 0
        replace_attention(model, partial(Counting, dropout=0.0), max_seq_len=LENGTH)
        if not watched:
            stop_watching(model)
        out = model(x, src_key_padding_mask=padding)
        replace_attention(model, UniformAttention, max_seq_len=LENGTH)
        uniform = model(x, src_key_padding_mask=padding)
    assert Counting.calls == 2
    torch.testing.assert_close(out[~padding], expected[~padding], **CLOSE)
    assert (uniform - expected)[~padding].abs().max() > APART


def test_what_stands_at_padding_has_no_influence(x, padding, make_encoder):
    model = make_encoder().eval()
    replace_attention(model, "rmfa_exp_scaled", ppsbn="with", max_seq_len=LENGTH)
    out = model(x, src_key_padding_mask=padding)
    other = model(torch.where(padding[..., None], 1e3, x), src_key_padding_mask=padding)
    torch.testing.assert_close(out[~padding], other[~padding], atol=0, rtol=0)


def test_a_mask_of_floats_is_read_where_it_says_padding_alone(x, padding, make_attention):
    model = make_attention(batch_first=True)
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    expected, _ = model(x, x, x, key_padding_mask=padding)
    floats = torch.zeros(padding.shape).masked_fill(padding, -torch.inf)
    out, _ = model(x, x, x, key_padding_mask=floats)
    torch.testing.assert_close(out, expected, atol=0, rtol=0)
    with pytest.raises(RuntimeError, match="0 and -inf"):
        model(x, x, x, key_padding_mask=floats - 5)


def test_masks_between_tokens_are_refused_by_name(x, make_encoder):
    model = nn.Sequential(make_encoder()).eval()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    causal = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    with pytest.raises(DropinError, match=r"0\.layers\.0\.self_attn got attn_mask"):
        model[0](x, mask=causal)
    with pytest.raises(DropinError, match="got is_causal"):
        model[0].layers[0].self_attn(x, x, x, is_causal=True)


@pytest.mark.parametrize("row", [SOFTMAX, "reformer", "h_transformer"])
def test_attention_to_another_sequence_is_refused_by_name(x, row, make_attention):
    """Of the same length, no shape tells it: a row for one sequence would not look at its keys."""
    model = nn.ModuleDict({"cross": make_attention(batch_first=True)})
    replace_attention(model, row, max_seq_len=LENGTH)
    cross = model["cross"]
    cross(x, x, x)
    memory = torch.randn_like(x)
    with pytest.raises(DropinError, match=r"^cross got keys that are another .* through layers$"):
        cross(x, memory, memory)


def test_the_parameters_are_those_of_before_and_restoring_gives_all_back(x, padding, make_encoder):
    model = make_encoder().eval()
    parameters = dict(model.named_parameters())
    expected = model(x, src_key_padding_mask=padding)
    state = vars(model.layers[0].self_attn).keys()
    for row in ("rmfa_exp", "softmax"):  # the second takes the first one's place
        replace_attention(model, row, ppsbn="with", max_seq_len=LENGTH)
    added = model.state_dict().keys() - parameters.keys()
    assert {name.split(".")[-1] for name in added} == {"gamma", "beta"}
    restore(model)
    assert dict(model.named_parameters()).keys() == parameters.keys()
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert vars(model.layers[0].self_attn).keys() == state and model.use_nested_tensor
    out = model(x, src_key_padding_mask=padding)
    torch.testing.assert_close(out, expected, atol=0, rtol=0)
    assert not model._forward_hooks


def test_a_state_holds_features_and_scales(x, make_encoder):
    row = {"ppsbn": "with", "max_seq_len": LENGTH}
    models = [make_encoder(), make_encoder()]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        replace_attention(model, "rmfa_exp_scaled", **row)
    assert not torch.equal(models[0](x), models[1](x))  # other features
    models[1].load_state_dict(models[0].state_dict())
    torch.testing.assert_close(models[0](x), models[1](x), atol=0, rtol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_attends_as_its_model(x, copied, make_encoder):
    model = make_encoder().eval()
    replace_attention(model, "rmfa_exp", ppsbn="with", max_seq_len=LENGTH)
    torch.testing.assert_close(copied(model)(x), model(x), atol=0, rtol=0)


def test_gradients_reach_every_parameter(x, padding, make_encoder):
    model = make_encoder()
    replace_attention(model, "rmfa_exp_scaled", ppsbn="with", max_seq_len=LENGTH)
    model(x, src_key_padding_mask=padding)[~padding].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_new_attention_is_where_the_layer_is_and_in_its_precision(make_encoder):
    model = make_encoder().to(torch.bfloat16)
    replace_attention(model, "rmfa_exp_scaled", ppsbn="with", max_seq_len=LENGTH)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.randn(2, LENGTH, DIM, dtype=torch.bfloat16)).dtype == torch.bfloat16
