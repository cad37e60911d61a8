"""Attention in models of torch: what is replaced is reached, computes the same, and comes back."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from macformer.attention import NoAttention, SoftmaxAttention, UniformAttention
from macformer.dropin import DropinError, replace_attention, restore
from macformer.dropin.reached import stop_watching

DIM, HEADS, BATCH, LENGTH = 12, 2, 3, 11
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)
CLOSE = {"atol": 2e-5, "rtol": 1e-4}  # fused and unfused sums in float32
APART = 0.1  # what another attention changes at least in these models

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


@pytest.fixture
def x():
    return torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def padding():
    mask = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    mask[0, 7:] = mask[2, 4:] = True
    return mask


def sharpened(model: nn.Module) -> nn.Module:
    """Enlarge the weights, so that attention is far from an average."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model


def make_attention(**options) -> nn.Module:
    torch.manual_seed(0)
    return sharpened(nn.MultiheadAttention(DIM, HEADS, **options))


def make_encoder(num_layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, batch_first=True, dropout=0.0)
    return sharpened(nn.TransformerEncoder(layer, num_layers))


class Counting(SoftmaxAttention):
    """Softmax that counts its calls."""

    calls = 0

    def forward(self, *args, **kwargs):
        Counting.calls += 1
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["BLD", "LBD"])
def test_softmax_in_the_place_of_attention_changes_nothing(x, padding, batch_first, training):
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
def test_keys_and_values_of_another_sequence_and_width(batched):
    model = make_attention(kdim=5, vdim=7, batch_first=True)
    inputs = [torch.randn(BATCH, n, width) for n, width in ((4, DIM), (LENGTH, 5), (LENGTH, 7))]
    mask = torch.arange(LENGTH) >= 6
    if batched:
        mask = mask.expand(BATCH, -1)
    else:
        inputs = [part[0] for part in inputs]
    expected, _ = model(*inputs, key_padding_mask=mask)
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    out, _ = model(*inputs, key_padding_mask=mask)
    torch.testing.assert_close(out, expected, **CLOSE)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_an_encoder_in_evaluation_calls_what_was_put_in(x, padding, grad, watched):
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


def test_what_stands_at_padding_has_no_influence(x, padding):
    model = make_encoder().eval()
    replace_attention(model, "rmfa_exp_scaled", ppsbn="with", max_seq_len=LENGTH)
    out = model(x, src_key_padding_mask=padding)
    other = model(torch.where(padding[..., None], 1e3, x), src_key_padding_mask=padding)
    torch.testing.assert_close(out[~padding], other[~padding], atol=0, rtol=0)


def test_a_mask_of_floats_is_read_where_it_says_padding_alone(x, padding):
    model = make_attention(batch_first=True)
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    expected, _ = model(x, x, x, key_padding_mask=padding)
    floats = torch.zeros(padding.shape).masked_fill(padding, -torch.inf)
    out, _ = model(x, x, x, key_padding_mask=floats)
    torch.testing.assert_close(out, expected, atol=0, rtol=0)
    with pytest.raises(RuntimeError, match="0 and -inf"):
        model(x, x, x, key_padding_mask=floats - 5)


def test_masks_between_tokens_are_refused_by_name(x):
    model = nn.Sequential(make_encoder()).eval()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    causal = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    with pytest.raises(DropinError, match=r"0\.layers\.0\.self_attn got attn_mask"):
        model[0](x, mask=causal)
    with pytest.raises(DropinError, match="got is_causal"):
        model[0].layers[0].self_attn(x, x, x, is_causal=True)


def test_the_parameters_are_those_of_before_and_restoring_gives_all_back(x, padding):
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


def test_a_state_holds_features_and_scales(x):
    row = {"ppsbn": "with", "max_seq_len": LENGTH}
    models = [make_encoder(), make_encoder()]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        replace_attention(model, "rmfa_exp_scaled", **row)
    assert not torch.equal(models[0](x), models[1](x))  # other features
    models[1].load_state_dict(models[0].state_dict())
    torch.testing.assert_close(models[0](x), models[1](x), atol=0, rtol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_attends_as_its_model(x, copied):
    model = make_encoder().eval()
    replace_attention(model, "rmfa_exp", ppsbn="with", max_seq_len=LENGTH)
    torch.testing.assert_close(copied(model)(x), model(x), atol=0, rtol=0)


def test_gradients_reach_every_parameter(x, padding):
    model = make_encoder()
    replace_attention(model, "rmfa_exp_scaled", ppsbn="with", max_seq_len=LENGTH)
    model(x, src_key_padding_mask=padding)[~padding].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_layers_are_chosen_by_index_by_pattern_or_by_a_predicate():
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


def test_the_report_says_what_can_be_gained():
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


def test_a_row_of_a_folder_of_ones_own(tmp_path, x):
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


def test_options_of_a_row_reach_it_and_nothing_else_is_one():
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


def test_a_refused_row_leaves_the_model_as_it_was(x):
    model = make_encoder().eval()
    expected = model(x)
    with pytest.raises(ValueError, match="num_features is 0"):
        replace_attention(
            model, "rmfa_exp", overrides=["attention.num_features=0"], max_seq_len=LENGTH
        )
    torch.testing.assert_close(model(x), expected, atol=0, rtol=0)


class MoreThanAttention(nn.MultiheadAttention):
    """A class of somebody's own."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (partial(make_attention, add_bias_kv=True), "it adds a key"),
        (partial(make_attention, add_zero_attn=True), "it adds a key"),
        (partial(MoreThanAttention, DIM, HEADS), "MoreThanAttention may do more"),
        (partial(nn.TransformerDecoderLayer, DIM, HEADS), "it is of a decoder"),
        (partial(nn.Linear, DIM, DIM), "Linear has no attention that can be replaced"),
    ],
)
def test_what_cannot_be_replaced_is_refused_with_the_reason(make, reason):
    with pytest.raises(DropinError, match=reason):
        replace_attention(make(), SOFTMAX, max_seq_len=LENGTH)


def test_a_model_that_does_not_say_its_length_is_asked_for_it():
    with pytest.raises(DropinError, match="give max_seq_len"):
        replace_attention(make_encoder(), SOFTMAX)


class AroundAttention(nn.Module):
    """Compute attention from its module's weights, as a fused function may."""

    def __init__(self):
        super().__init__()
        self.attention = make_attention(batch_first=True)

    def forward(self, x):
        projected = nn.functional.linear(
            x, self.attention.in_proj_weight, self.attention.in_proj_bias
        )
        return nn.functional.scaled_dot_product_attention(*projected.chunk(3, -1))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_model_that_goes_around_its_attention_raises(x, training):
    model = AroundAttention().train(training)
    replace_attention(model, UniformAttention, max_seq_len=LENGTH)
    with pytest.raises(DropinError, match="without the attention put into attention"):
        model(x)


def test_layers_left_out_by_chance_in_training_are_no_fault(x):
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
def test_checkpointing_is_refused_around_what_changes_in_each_pass(x, row, options):
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


def test_the_new_attention_is_where_the_layer_is_and_in_its_precision():
    model = make_encoder().to(torch.bfloat16)
    replace_attention(model, "rmfa_exp_scaled", ppsbn="with", max_seq_len=LENGTH)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.randn(2, LENGTH, DIM, dtype=torch.bfloat16)).dtype == torch.bfloat16
