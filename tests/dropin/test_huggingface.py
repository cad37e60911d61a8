"""Attention in models of transformers, built small with random weights; nothing is downloaded."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from macformer.attention import (
    KernelizedAttention,
    SoftmaxAttention,
    UniformAttention,
    kernels,
)
from macformer.dropin import DropinError, replace_attention, restore

transformers = pytest.importorskip("transformers")

LENGTH = 17
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)
APART = 0.1  # what an average in the place of attention changes at least
ROW = {"ppsbn": "with", "overrides": ["attention.num_features=16"]}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_softmax_in_the_place_of_attention_changes_no_bit(kind, make_model, make_inputs, states):
    model, inputs = make_model(kind), make_inputs(kind)
    expected = states(model, inputs)
    replace_attention(model, SOFTMAX)
    torch.testing.assert_close(states(model, inputs), expected, atol=0, rtol=0)
    replace_attention(model, UniformAttention)
    assert (states(model, inputs) - expected).abs().max() > APART
    restore(model)
    torch.testing.assert_close(states(model, inputs), expected, atol=0, rtol=0)


def test_softmax_changes_no_bit_of_a_model_of_sound(sizes):
    torch.manual_seed(0)
    conv = {"conv_dim": [8, 8], "conv_kernel": [5, 3], "conv_stride": [4, 2], "conv_bias": True}
    groups = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = transformers.Wav2Vec2Config(
        **sizes, **conv, **groups, feat_extract_norm="layer", num_feat_extract_layers=2
    )
    model = transformers.Wav2Vec2Model(config).eval()
    mask = torch.ones(2, 400, dtype=torch.long)
    mask[0, 250:] = 0
    inputs = {"input_values": torch.randn(2, 400), "attention_mask": mask}
    with torch.no_grad():
        expected = model(**inputs)[0]
        with pytest.raises(DropinError, match="give max_seq_len"):
            replace_attention(model, SOFTMAX)
        replace_attention(model, SOFTMAX, max_seq_len=50)
        torch.testing.assert_close(model(**inputs)[0], expected, atol=0, rtol=0)
        replace_attention(model, UniformAttention, max_seq_len=50)
        assert (model(**inputs)[0] - expected).abs().max() > APART


def test_the_exact_kernel_of_softmax_is_softmax(make_model, make_inputs, states):
    """Another path to the same function: weights by exp, and a sum that leaves padding out."""
    model, inputs = make_model("Bert"), make_inputs("Bert")
    expected = states(model, inputs)
    exact = partial(
        KernelizedAttention, kernel=kernels.exp(), input_norm=None, guard=None, scale=None
    )
    replace_attention(model, exact)
    torch.testing.assert_close(states(model, inputs), expected, atol=1e-5, rtol=0)


def test_a_scaling_of_the_models_own_goes_into_the_queries(make_model, make_inputs, states):
    model, inputs = make_model("Bert"), make_inputs("Bert")
    for layer in model.encoder.layer:
        layer.attention.self.scaling = 0.7
    expected = states(model, inputs)
    replace_attention(model, SOFTMAX)
    torch.testing.assert_close(states(model, inputs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Bert", "ModernBert"])
def test_padding_has_no_influence_and_may_be_cut_off(kind, make_model, make_inputs, states):
    model, inputs = make_model(kind), make_inputs(kind)
    replace_attention(model, "rmfa_exp_scaled", **ROW)
    expected = states(model, inputs)
    other = inputs["input_ids"].where(inputs["attention_mask"].bool(), 7)
    out = states(model, {**inputs, "input_ids": other})
    torch.testing.assert_close(out, expected, atol=0, rtol=0)
    short = states(model, {"input_ids": inputs["input_ids"][:1, :11]})
    torch.testing.assert_close(short.flatten(0, 1), expected[:11], atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter(make_model, make_inputs):
    model, inputs = make_model("Bert"), make_inputs("Bert")
    replace_attention(model.train(), "rmfa_exp_scaled", **ROW)
    model(**inputs).last_hidden_state.square().sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in unused if not name.startswith("pooler")] == []


def test_heads_that_share_keys_get_them_each(make_model, make_inputs, states):
    model, inputs = make_model("EuroBert"), make_inputs("EuroBert")
    assert model.layers[0].self_attn.k_proj.out_features == 10
    shapes = []

    class Recording(SoftmaxAttention):
        def forward(self, query, key, value, **options):
            shapes.append((query.shape, key.shape, value.shape))
            return super().forward(query, key, value, **options)

    replace_attention(model, partial(Recording, dropout=0.0))
    states(model, inputs)
    assert {tuple(shape) for call in shapes for shape in call} == {(2, 2, LENGTH, 10)}


def test_a_model_within_a_module_of_ones_own(tmp_path, make_model, make_inputs, states):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = make_model("Bert")
            self.mixer = nn.MultiheadAttention(20, 2, batch_first=True)

        def forward(self, **inputs):
            x = self.encoder(**inputs).last_hidden_state
            return self.mixer(x, x, x)

    model, inputs = Classifier().eval(), make_inputs("Bert")
    expected = states(model, inputs)
    report = replace_attention(model, SOFTMAX)
    assert report.replaced[-1] == "mixer" and len(report.replaced) == 3
    torch.testing.assert_close(states(model, inputs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_models_within_a_model_get_back_what_they_had(shared, make_model):
    """Of one configuration, too; and those that were replaced on their own."""
    one, other = (make_model("Bert", head="ForMaskedLM") for _ in range(2))
    model = nn.ModuleList([one, type(one)(one.config) if shared else other])
    for within in (model, one.bert, one):
        replace_attention(within, SOFTMAX, max_seq_len=LENGTH)
        restore(model)
        assert [part.config._attn_implementation for part in model] == ["sdpa", "sdpa"]


@pytest.mark.parametrize("kind", ["float", "bool"])
def test_a_mask_of_keys_in_four_dimensions_is_read(kind, make_model, make_inputs, states):
    model, inputs = make_model("Bert"), make_inputs("Bert")
    replace_attention(model, SOFTMAX)
    expected = states(model, inputs)
    keep = inputs["attention_mask"].bool()
    mask = keep[:, None, None]
    if kind == "float":
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    out = model(**{**inputs, "attention_mask": mask})[0][keep]
    torch.testing.assert_close(out, expected, atol=0, rtol=0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_activations_changes_no_gradient(reentrant, make_model, make_inputs):
    grads = []
    for checkpointing in (False, True):
        model, inputs = make_model("Bert").train(), make_inputs("Bert")
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        replace_attention(model, "softmax", ppsbn="with")
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            with pytest.raises(DropinError, match="checkpoints activations"):
                replace_attention(model, "rfa", overrides=["attention.pool_size=2"])
            replace_attention(model, "softmax", ppsbn="with")
        model(**inputs)[0].square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-4)


IMAGES = {"ViT": 1, "DeiT": 2, "SiglipVision": 0, "Dinov2": 1, "Dinov2WithRegisters": 5}


@pytest.mark.parametrize(("kind", "more"), IMAGES.items(), ids=list(IMAGES))
def test_an_image_is_as_long_as_its_patches_and_what_the_model_adds(kind, more, sizes):
    config = getattr(transformers, f"{kind}Config")(image_size=16, patch_size=4, **sizes)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    assert replace_attention(model, SOFTMAX).max_seq_len == 16 + more
    with torch.no_grad():
        assert model(torch.randn(1, 3, 16, 16))[0].shape[1] == 16 + more


def test_a_model_of_images_without_a_table_of_positions_is_asked_for_its_length(sizes):
    config = transformers.DINOv3ViTConfig(image_size=16, patch_size=4, **sizes)
    with pytest.raises(DropinError, match="give max_seq_len"):
        replace_attention(transformers.DINOv3ViTModel(config), SOFTMAX)


def test_the_share_of_attention_of_a_model_of_known_sizes():
    """Twelve layers of BERT-base at 512 tokens: N / (6 D + N) = 512 / 5,120."""
    sizes = {"num_hidden_layers": 3, "vocab_size": 30}
    with torch.device("meta"):
        model = transformers.BertModel(transformers.BertConfig(**sizes))
    report = replace_attention(model, SOFTMAX)
    assert report.max_seq_len == 512
    assert report.attention_share == pytest.approx(512 / (6 * 768 + 512))
    assert math.isclose(report.upper_limit, 10 / 9)
