"""Which layers are replaced, by which row, and what the report says of it."""

from functools import partial

import pytest
import torch
from torch import nn

from macformer.attention import NoAttention, SoftmaxAttention
from macformer.dropin import DropinError, replace_attention

DIM, HEADS, LENGTH = 12, 2, 11
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)


def test_layers_are_chosen_by_index_by_pattern_or_by_a_predicate(make_encoder):
    model = make_encoder(4)
    kinds = ([1, 3], ["layers.1.*", "layers.3.self_attn"], lambda name: name[7] in "13")
    for layers in kinds:
        report = replace_attention(model, SOFTMAX, max_seq_len=LENGTH, layers=layers)
        assert report.replaced == ("layers.1.self_attn", "layers.3.self_attn")
        assert report.kept.keys() == {"layers.0.self_attn", "layers.2.self_attn"}
        assert set(report.kept.values()) == {"not chosen"}
    for layers in ([4], ["decoder.*"]):
        with pytest.raises(DropinError, match=r"layers\.\*\.self_attn, or 0 to 3"):
            replace_attention(model, SOFTMAX, max_seq_len=LENGTH, layers=layers)


def test_the_report_says_what_can_be_gained(make_encoder):
    """An encoder of width D with an FFN of 4 D spends N / (6 D + N) on attention."""
    model = make_encoder(4)
    share = LENGTH / (6 * DIM + LENGTH)
    report = replace_attention(model, "rmfa_exp", ppsbn="with", max_seq_len=LENGTH)
    assert report.attention_share == pytest.approx(share)
    assert report.upper_limit == pytest.approx(1 / (1 - share))
    assert report.num_parameters == 4 * 2 * HEADS  # gamma and beta
    half = replace_attention(model, SOFTMAX, max_seq_len=LENGTH, layers=[0, 1])
    assert half.attention_share == pytest.approx(share / 2)
    assert f"{1 / (1 - share):.2f} times as fast" in str(report)


def test_a_row_of_a_folder_of_ones_own(tmp_path, x, make_encoder):
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "mine.yaml").write_text(
        "_target_: macformer.attention.NoAttention\n_partial_: true\n"
    )
    model = make_encoder()
    row = {"config_dirs": [tmp_path], "max_seq_len": LENGTH}
    replace_attention(model, "mine", **row)
    out = model(x)
    replace_attention(model, NoAttention, max_seq_len=LENGTH)
    torch.testing.assert_close(out, model(x), atol=0, rtol=0)


def test_options_of_a_row_reach_it_and_nothing_else_is_one(make_encoder):
    model = make_encoder()
    few = {"overrides": ["attention.num_features=5"], "max_seq_len": LENGTH}
    replace_attention(model, "rmfa_exp", ppsbn="with", **few)
    assert model.layers[0].self_attn.macformer.attention.num_features == 5
    for override in ("seed=1", "hydra.searchpath=[/]", "+attention.scale={_target_: os.abort}"):
        with pytest.raises(DropinError, match="not an option of a row"):
            replace_attention(model, "rmfa_exp", overrides=[override], max_seq_len=LENGTH)
    with pytest.raises(DropinError, match="name of a row"):
        replace_attention(model, "{_target_: os.abort}", max_seq_len=LENGTH)
    with pytest.raises(DropinError, match="given by its name"):
        replace_attention(model, SOFTMAX, ppsbn="with", max_seq_len=LENGTH)


def test_a_refused_row_leaves_the_model_as_it_was(x, make_encoder):
    model = make_encoder().eval()
    expected = model(x)
    with pytest.raises(ValueError, match="num_features is 0"):
        replace_attention(
            model, "rmfa_exp", overrides=["attention.num_features=0"], max_seq_len=LENGTH
        )
    torch.testing.assert_close(model(x), expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("rmfa_typo", {}),
        ("rmfa_exp", {"overrides": ["attention.num_features=0"]}),
        ("rmfa_exp", {"layers": [7]}),
        ("rmfa_exp", {"layers": "encoder"}),
    ],
    ids=str,
)
def test_a_refused_row_leaves_the_one_before_with_what_it_has_learnt(x, make_encoder, row, options):
    model = make_encoder().eval()
    replace_attention(model, "rmfa_exp_scaled", ppsbn="with", max_seq_len=LENGTH)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "log_scale" in name:
                parameter.add_(0.3)
    expected = model(x)
    with pytest.raises(ValueError):
        replace_attention(model, row, max_seq_len=LENGTH, **options)
    torch.testing.assert_close(model(x), expected, atol=0, rtol=0)


def test_a_second_row_takes_the_place_of_the_first_everywhere(x, make_encoder):
    model, other = make_encoder().eval(), make_encoder().eval()
    first = replace_attention(model, "linformer", max_seq_len=LENGTH)
    second = replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    assert second == replace_attention(other, SOFTMAX, max_seq_len=LENGTH)
    assert second.replaced == first.replaced
    torch.testing.assert_close(model(x), other(x), atol=0, rtol=0)


class MoreThanAttention(nn.MultiheadAttention):
    """A class of somebody's own."""


class OwnPoolingHead(nn.Module):
    """What transformers calls a module that asks all tokens by a learnt query."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(DIM, HEADS)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (partial(nn.MultiheadAttention, DIM, HEADS, add_bias_kv=True), "it adds a key"),
        (partial(nn.MultiheadAttention, DIM, HEADS, add_zero_attn=True), "it adds a key"),
        (partial(nn.MultiheadAttention, DIM, HEADS, kdim=5), "keys or values have another width"),
        (partial(MoreThanAttention, DIM, HEADS), "MoreThanAttention may do more"),
        (partial(nn.TransformerDecoderLayer, DIM, HEADS), "it is of a decoder"),
        (OwnPoolingHead, "its query is no token of the sequence"),
        (partial(nn.Linear, DIM, DIM), "Linear has no attention that can be replaced"),
    ],
)
def test_what_cannot_be_replaced_is_refused_with_the_reason(make, reason):
    with pytest.raises(DropinError, match=reason):
        replace_attention(make(), SOFTMAX, max_seq_len=LENGTH)


def test_a_model_that_does_not_say_its_length_is_asked_for_it(make_encoder):
    with pytest.raises(DropinError, match="give max_seq_len"):
        replace_attention(make_encoder(), SOFTMAX)
