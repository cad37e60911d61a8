"""A model of transformers with an attention of ours, to a folder and back."""

import pytest
import torch
from torch import nn

from macformer.attention import UniformAttention
from macformer.dropin import DropinError, load, replace_attention, restore

transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

ROW = {"ppsbn": "with", "overrides": ["attention.num_features=16"]}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("kind", ["Bert", "ModernBert", "Albert", "NomicBert", "ViT"])
def test_saving_and_loading_keep_features_and_scales(
    kind, tmp_path, make_model, make_inputs, states
):
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


def test_saving_keeps_tied_weights_the_chosen_layers_and_the_precision(
    tmp_path, make_model, make_inputs, states
):
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


def test_loading_as_if_nothing_were_replaced_raises(tmp_path, make_model, make_inputs, states):
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


class OwnConfig(transformers.PretrainedConfig):
    model_type = "own"


class OwnModel(transformers.PreTrainedModel):
    """A model whose attention is torch's, which asks transformers for nothing."""

    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, x):
        return self.encoder(x)


def test_no_model_of_torch_s_attention_loads_as_if_nothing_were_replaced(tmp_path):
    model = OwnModel(OwnConfig()).eval()
    replace_attention(model, "uniform", max_seq_len=11)
    model.save_pretrained(tmp_path / "replaced")
    with pytest.raises(ValueError, match=r"macformer\.dropin\.load"):
        OwnModel.from_pretrained(tmp_path / "replaced")
    restore(model)
    assert not hasattr(model.config, "macformer")
    model.save_pretrained(tmp_path / "restored")
    x = torch.randn(2, 11, 12)
    loaded = OwnModel.from_pretrained(tmp_path / "restored").eval()
    torch.testing.assert_close(loaded(x), model(x), atol=0, rtol=0)


def test_a_folder_without_a_model_is_refused_without_looking_elsewhere(tmp_path, make_model):
    with pytest.raises(DropinError, match="holds no saved model"):
        load(tmp_path / "nowhere")
    model = make_model("Bert")
    replace_attention(model, "uniform")
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DropinError, match=r"lacks weights: model\.safetensors"):
        load(tmp_path)


def test_a_model_within_a_module_of_ones_own_is_saved_by_itself(
    tmp_path, make_model, make_inputs, states
):
    model = nn.ModuleDict({name: make_model("Bert") for name in "ab"})
    replace_attention(model, "rmfa_exp", layers=["a.encoder.layer.1.*"], **ROW)
    inputs = make_inputs("Bert")
    model["a"].save_pretrained(tmp_path / "a")
    loaded = load(tmp_path / "a")
    torch.testing.assert_close(states(loaded, inputs), states(model["a"], inputs), atol=0, rtol=0)
    model["b"].save_pretrained(tmp_path / "b")  # nothing in it was replaced
    plain = transformers.AutoModel.from_pretrained(tmp_path / "b").eval()
    torch.testing.assert_close(states(plain, inputs), states(model["b"], inputs), atol=0, rtol=0)
    restore(model)
    assert not hasattr(model["a"].config, "macformer")


@pytest.mark.parametrize("part", ["macformer.attention.signs", "query.weight"])
def test_a_folder_with_a_part_missing_is_refused(part, tmp_path, make_model):
    model = make_model("Bert")
    replace_attention(model, "rmfa_exp", **ROW)
    model.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    state = safetensors.load_file(file)
    del state[f"encoder.layer.1.attention.self.{part}"]
    safetensors.save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(DropinError, match=rf"of another model: missing \['encoder.*{part}'\], "):
        load(tmp_path)


def test_a_model_of_an_old_checkpoint_is_saved_under_its_names_and_loaded(
    tmp_path, make_model, make_inputs, states
):
    """The first ones of BERT call a norm's weight gamma, and transformers saves that name again."""
    make_model("Bert").save_pretrained(tmp_path / "old")
    file = tmp_path / "old" / "model.safetensors"
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    state = safetensors.load_file(file)
    for new, old in names.items():
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    safetensors.save_file(state, file, metadata={"format": "pt"})
    model = transformers.AutoModel.from_pretrained(tmp_path / "old").eval()
    replace_attention(model, "rmfa_exp", **ROW)
    model.save_pretrained(tmp_path / "new")
    assert any(
        "LayerNorm.gamma" in name for name in safetensors.load_file(tmp_path / "new" / file.name)
    )
    loaded, inputs = load(tmp_path / "new"), make_inputs("Bert")
    torch.testing.assert_close(states(loaded, inputs), states(model, inputs), atol=0, rtol=0)


def test_an_attention_without_a_name_must_be_given_to_load(
    tmp_path, make_model, make_inputs, states
):
    model, inputs = make_model("Bert"), make_inputs("Bert")
    replace_attention(model, UniformAttention)
    model.save_pretrained(tmp_path)
    with pytest.raises(DropinError, match="give attention"):
        load(tmp_path)
    loaded = load(tmp_path, attention=UniformAttention)
    torch.testing.assert_close(states(loaded, inputs), states(model, inputs), atol=0, rtol=0)
