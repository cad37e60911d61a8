"""Attention in models of transformers, built small with random weights; nothing is downloaded."""

import math
from functools import partial

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

from macformer.attention import (  # noqa: E402
    KernelizedAttention,
    SoftmaxAttention,
    UniformAttention,
    kernels,
)
from macformer.dropin import DropinError, load, replace_attention, restore  # noqa: E402

LENGTH, VOCAB = 17, 50
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)
# At transformers' own 0.02 attention is so flat that an average passes for it.
SHARP = {"initializer_range": 0.2}
APART = 0.1  # what an average in the place of attention changes at least
SIZES = {
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 28,
    **SHARP,
}
TEXT = {"vocab_size": VOCAB, "max_position_embeddings": 64, "pad_token_id": 0, **SIZES}
SPECIAL = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
TEXTS = {
    "Bert": TEXT,
    "Roberta": TEXT,
    "Albert": {**TEXT, "embedding_size": 6},
    "Electra": {**TEXT, "embedding_size": 20},
    "DistilBert": {
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "dim": 20,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 28,
        **SHARP,
    },
    "ModernBert": {**TEXT, **SPECIAL, "local_attention": 8, "global_attn_every_n_layers": 2},
    "NomicBert": TEXT,
    "EuroBert": {**TEXT, **SPECIAL, "num_key_value_heads": 1},
}
IMAGE = {"image_size": 16, "patch_size": 4, **SIZES}
IMAGES = {"ViT": IMAGE, "SiglipVision": IMAGE}
ROW = {"ppsbn": "with", "overrides": ["attention.num_features=16"]}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def make_model(kind: str, *, head: str = "Model", **changes) -> nn.Module:
    torch.manual_seed(0)
    options = {**TEXTS, **IMAGES}[kind]
    config = getattr(transformers, f"{kind}Config")(**{**options, **changes})
    return getattr(transformers, kind + head)(config).eval()


def make_inputs(kind: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if kind in IMAGES:
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    return {"input_ids": torch.randint(3, VOCAB, (2, LENGTH), generator=generator)} | pad_to(11)


def pad_to(length: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, length:] = 0
    return {"attention_mask": mask}


def states(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the states of what is not padding."""
    with torch.no_grad():
        out = model(**inputs)[0]
    return out[inputs["attention_mask"].bool()] if "attention_mask" in inputs else out


@pytest.mark.parametrize("kind", [*TEXTS, *IMAGES])
def test_softmax_in_the_place_of_attention_changes_no_bit(kind):
    model, inputs = make_model(kind), make_inputs(kind)
    expected = states(model, inputs)
    replace_attention(model, SOFTMAX)
    torch.testing.assert_close(states(model, inputs), expected, atol=0, rtol=0)
    replace_attention(model, UniformAttention)
    assert (states(model, inputs) - expected).abs().max() > APART
    restore(model)
    torch.testing.assert_close(states(model, inputs), expected, atol=0, rtol=0)


def test_softmax_changes_no_bit_of_a_model_of_sound():
    torch.manual_seed(0)
    conv = {"conv_dim": [8, 8], "conv_kernel": [5, 3], "conv_stride": [4, 2], "conv_bias": True}
    groups = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = transformers.Wav2Vec2Config(
        **SIZES, **conv, **groups, feat_extract_norm="layer", num_feat_extract_layers=2
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


def test_the_exact_kernel_of_softmax_is_softmax():
    """Another path to the same function: weights by exp, and a sum that leaves padding out."""
    model, inputs = make_model("Bert"), make_inputs("Bert")
    expected = states(model, inputs)
    exact = partial(
        KernelizedAttention, kernel=kernels.exp(), input_norm=None, guard=None, scale=None
    )
    replace_attention(model, exact)
    torch.testing.assert_close(states(model, inputs), expected, atol=1e-5, rtol=0)


def test_a_scaling_of_the_models_own_goes_into_the_queries():
    model, inputs = make_model("Bert"), make_inputs("Bert")
    for layer in model.encoder.layer:
        layer.attention.self.scaling = 0.7
    expected = states(model, inputs)
    replace_attention(model, SOFTMAX)
    torch.testing.assert_close(states(model, inputs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Bert", "ModernBert"])
def test_padding_has_no_influence_and_may_be_cut_off(kind):
    model, inputs = make_model(kind), make_inputs(kind)
    replace_attention(model, "rmfa_exp_scaled", **ROW)
    expected = states(model, inputs)
    other = inputs["input_ids"].where(inputs["attention_mask"].bool(), 7)
    out = states(model, {**inputs, "input_ids": other})
    torch.testing.assert_close(out, expected, atol=0, rtol=0)
    short = states(model, {"input_ids": inputs["input_ids"][:1, :11]})
    torch.testing.assert_close(short.flatten(0, 1), expected[:11], atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter():
    model, inputs = make_model("Bert"), make_inputs("Bert")
    replace_attention(model.train(), "rmfa_exp_scaled", **ROW)
    model(**inputs).last_hidden_state.square().sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in unused if not name.startswith("pooler")] == []


@pytest.mark.parametrize("kind", ["Bert", "ModernBert", "Albert"])
def test_saving_and_loading_keep_features_and_scales(kind, tmp_path):
    model, inputs = make_model(kind), make_inputs(kind)
    report = replace_attention(model, "rmfa_exp_scaled", **ROW)
    scales = [p for name, p in model.named_parameters() if "log_scale" in name]
    with torch.no_grad():
        for scale in scales:
            scale.add_(0.3)
    expected = states(model, inputs)
    model.save_pretrained(tmp_path)
    torch.manual_seed(7)
    loaded = load(tmp_path)
    assert type(loaded) is type(model)
    torch.testing.assert_close(states(loaded, inputs), expected, atol=0, rtol=0)
    again = replace_attention(loaded, "softmax")
    assert again.replaced == report.replaced


def test_saving_keeps_tied_weights_the_chosen_layers_and_the_precision(tmp_path):
    model = make_model("Bert", head="ForMaskedLM").to(torch.bfloat16)
    replace_attention(model, "rmfa_exp", ppsbn="with", layers=[1])
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert [n for n, m in loaded.named_modules() if n.endswith("self.macformer")] == [
        "bert.encoder.layer.1.attention.self.macformer"
    ]
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    inputs = make_inputs("Bert")
    torch.testing.assert_close(states(loaded, inputs), states(model, inputs), atol=0, rtol=0)


def test_loading_as_if_nothing_were_replaced_raises(tmp_path):
    model, inputs = make_model("Bert"), make_inputs("Bert")
    replace_attention(model, "rmfa_exp", **ROW)
    model.save_pretrained(tmp_path)
    plain = transformers.AutoModel.from_pretrained(tmp_path)
    with pytest.raises(DropinError, match=r"load the model by macformer\.dropin\.load"):
        plain(**inputs)
    restore(model)
    model.save_pretrained(tmp_path)
    plain = transformers.AutoModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(states(plain, inputs), states(model, inputs), atol=0, rtol=0)
    with pytest.raises(DropinError, match="has no replaced attention"):
        load(tmp_path)


def test_an_attention_without_a_name_must_be_given_to_load(tmp_path):
    model, inputs = make_model("Bert"), make_inputs("Bert")
    replace_attention(model, UniformAttention)
    model.save_pretrained(tmp_path)
    with pytest.raises(DropinError, match="give attention"):
        load(tmp_path)
    loaded = load(tmp_path, attention=UniformAttention)
    torch.testing.assert_close(states(loaded, inputs), states(model, inputs), atol=0, rtol=0)


def test_the_name_alone_runs_no_softmax():
    model = make_model("Bert")
    model.set_attn_implementation("macformer")
    with pytest.raises(DropinError, match="no replaced attention"):
        model(**make_inputs("Bert"))


def test_layers_that_are_kept_go_on_with_softmax():
    """Of ModernBERT's layers all but some slide a window; of others some may not be chosen."""
    model, inputs = make_model("ModernBert"), make_inputs("ModernBert")
    report = replace_attention(model, SOFTMAX)
    assert report.replaced == ("layers.0.attn",)
    assert report.kept == {"layers.1.attn": "its window slides, in linear time already"}
    with pytest.raises(DropinError, match=r"layers\.1\.attn cannot be replaced: its window"):
        replace_attention(model, SOFTMAX, layers=[0, 1])
    model, inputs = make_model("Bert"), make_inputs("Bert")
    expected = states(model, inputs)
    replace_attention(model, SOFTMAX, layers=[1])
    torch.testing.assert_close(states(model, inputs), expected, atol=0, rtol=0)


def test_heads_that_share_keys_get_them_each():
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


def test_a_model_within_a_module_of_ones_own(tmp_path):
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


def test_a_model_that_chooses_its_attention_by_itself_is_refused():
    config = transformers.DebertaV2Config(vocab_size=VOCAB, **SIZES)
    with pytest.raises(DropinError, match="DebertaV2Model has no attention that can be replaced"):
        replace_attention(transformers.DebertaV2Model(config), SOFTMAX)


def test_an_implementation_that_stays_is_refused(monkeypatch):
    model = make_model("Bert")
    monkeypatch.setattr(type(model), "set_attn_implementation", lambda self, name: None)
    with pytest.raises(DropinError, match="stays with attn_implementation=sdpa"):
        replace_attention(model, SOFTMAX)
    assert not [name for name, _ in model.named_modules() if "macformer" in name]


def test_causal_attention_and_that_to_another_sequence_is_kept():
    decoder = make_model("Bert", is_decoder=True, add_cross_attention=True)
    with pytest.raises(DropinError, match=r"it is causal.*it attends to another sequence"):
        replace_attention(decoder, SOFTMAX)
    config = transformers.CLIPTextConfig(vocab_size=VOCAB, **SIZES)
    clip = transformers.CLIPTextModel(config).eval()
    replace_attention(clip, SOFTMAX)  # only its calls say that it is causal
    with pytest.raises(DropinError, match=r"encoder\.layers\.0\.self_attn needs is_causal"):
        clip(input_ids=torch.ones(1, 5, dtype=torch.long))


def test_an_encoder_with_a_decoder_gets_it_in_the_encoder():
    torch.manual_seed(0)
    side = {"layers": 2, "attention_heads": 2, "ffn_dim": 28}
    sizes = {f"{name}_{key}": n for name in ("encoder", "decoder") for key, n in side.items()}
    config = transformers.BartConfig(
        vocab_size=VOCAB, d_model=20, max_position_embeddings=64, init_std=0.2, **sizes
    )
    model, inputs = transformers.BartModel(config).eval(), make_inputs("Bert")
    expected = states(model, inputs)
    report = replace_attention(model, SOFTMAX)
    assert [name.split(".")[0] for name in report.replaced] == ["encoder", "encoder"]
    assert len(report.kept) == 4
    torch.testing.assert_close(states(model, inputs), expected, atol=1e-5, rtol=1e-5)


def test_a_bias_of_positions_is_refused_by_name():
    sizes = {"d_model": 20, "d_kv": 10, "d_ff": 28, "num_layers": 2, "num_heads": 2}
    model = transformers.T5EncoderModel(transformers.T5Config(vocab_size=VOCAB, **sizes)).eval()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    with pytest.raises(DropinError, match=r"block\.0\.layer\.0\.SelfAttention needs position_bias"):
        model(**make_inputs("Bert"))


def test_a_mask_between_tokens_is_refused_by_the_name_of_the_layer():
    model, inputs = make_model("Bert"), make_inputs("Bert")
    replace_attention(model, SOFTMAX)
    between = torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    with pytest.raises(
        DropinError, match=r"encoder\.layer\.0\.attention\.self has a mask of shape"
    ):
        model(**{**inputs, "attention_mask": between})


@pytest.mark.parametrize("kind", ["float", "bool"])
def test_a_mask_of_keys_in_four_dimensions_is_read(kind):
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
def test_checkpointing_activations_changes_no_gradient(reentrant):
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


def test_the_share_of_attention_of_a_model_of_known_sizes():
    """Twelve layers of BERT-base at 512 tokens: N / (6 D + N) = 512 / 5,120."""
    sizes = {"num_hidden_layers": 3, "vocab_size": 30}
    with torch.device("meta"):
        model = transformers.BertModel(transformers.BertConfig(**sizes))
    report = replace_attention(model, SOFTMAX)
    assert report.max_seq_len == 512
    assert report.attention_share == pytest.approx(512 / (6 * 768 + 512))
    assert math.isclose(report.upper_limit, 10 / 9)
