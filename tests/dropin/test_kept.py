"""Which attention of transformers stays as it is, and what is refused by name."""

from functools import partial

import pytest
import torch

from macformer.attention import SoftmaxAttention
from macformer.dropin import DropinError, replace_attention

transformers = pytest.importorskip("transformers")

LENGTH, VOCAB = 17, 50
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_layers_that_are_kept_go_on_with_softmax(make_model, make_inputs, states):
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


def test_an_encoder_with_a_decoder_gets_it_in_the_encoder(make_inputs, states):
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


def test_causal_attention_and_that_to_another_sequence_is_kept(make_model, sizes):
    decoder = make_model("Bert", is_decoder=True, add_cross_attention=True)
    with pytest.raises(DropinError, match=r"it is causal.*it attends to another sequence"):
        replace_attention(decoder, SOFTMAX)
    config = transformers.CLIPTextConfig(vocab_size=VOCAB, **sizes)
    clip = transformers.CLIPTextModel(config).eval()
    replace_attention(clip, SOFTMAX)  # only its calls say that it is causal
    with pytest.raises(DropinError, match=r"encoder\.layers\.0\.self_attn needs is_causal"):
        clip(input_ids=torch.ones(1, 5, dtype=torch.long))


def test_a_head_that_pools_by_a_query_of_its_own_is_kept(make_model):
    report = replace_attention(make_model("SiglipVision"), SOFTMAX)
    assert report.kept == {"head.attention": "its query is no token of the sequence"}


def test_a_model_that_chooses_its_attention_by_itself_is_refused(sizes):
    config = transformers.DebertaV2Config(vocab_size=VOCAB, **sizes)
    with pytest.raises(DropinError, match="DebertaV2Model has no attention that can be replaced"):
        replace_attention(transformers.DebertaV2Model(config), SOFTMAX)


def test_an_implementation_that_stays_is_refused(monkeypatch, make_model):
    model = make_model("Bert")
    monkeypatch.setattr(type(model), "set_attn_implementation", lambda self, name: None)
    with pytest.raises(DropinError, match="stays with attn_implementation=sdpa"):
        replace_attention(model, SOFTMAX)
    assert not [name for name, _ in model.named_modules() if "macformer" in name]


def test_the_name_alone_runs_no_softmax(make_model, make_inputs):
    model = make_model("Bert")
    model.set_attn_implementation("macformer")
    with pytest.raises(DropinError, match="no replaced attention"):
        model(**make_inputs("Bert"))


def test_a_bias_of_positions_is_refused_by_name(make_inputs):
    sizes = {"d_model": 20, "d_kv": 10, "d_ff": 28, "num_layers": 2, "num_heads": 2}
    model = transformers.T5EncoderModel(transformers.T5Config(vocab_size=VOCAB, **sizes)).eval()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    with pytest.raises(DropinError, match=r"block\.0\.layer\.0\.SelfAttention needs position_bias"):
        model(**make_inputs("Bert"))


def test_a_mask_between_tokens_is_refused_by_the_name_of_the_layer(make_model, make_inputs):
    model, inputs = make_model("Bert"), make_inputs("Bert")
    replace_attention(model, SOFTMAX)
    between = torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    with pytest.raises(
        DropinError, match=r"encoder\.layer\.0\.attention\.self has a mask of shape"
    ):
        model(**{**inputs, "attention_mask": between})
