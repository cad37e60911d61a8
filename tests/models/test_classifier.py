"""The classifier: its size by hand, its poolings and its pairs."""

import math
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from macformer.attention import SoftmaxAttention
from macformer.models import (
    ClsPooling,
    EncoderLayer,
    LearnedPositions,
    MeanPooling,
    MLPHead,
    MultiheadAttention,
    PaddedMeanPooling,
    PixelEmbedding,
    SequenceClassifier,
    SequenceEncoder,
    SinusoidalPositions,
    TokenEmbedding,
    UnmaskedMeanPooling,
    concatenate_pair,
    nli_pair,
)
from macformer.runs.config import compose

N, D = 11, 8
softmax = partial(SoftmaxAttention, dropout=0.0)


mixer = partial(MultiheadAttention, num_heads=2, qkv_dim=6, bias=True, attention=softmax)
encoder = partial(
    SequenceEncoder,
    max_seq_len=N,
    num_layers=2,
    ffn_dim=12,
    activation=nn.GELU,
    dropout=0.0,
    embedding=partial(TokenEmbedding, vocab_size=16, std=1.0),
    positions=partial(LearnedPositions, std=1.0),
    mixer=mixer,
)


def build(*, paired=False, pooling=MeanPooling) -> SequenceClassifier:
    torch.manual_seed(0)
    return SequenceClassifier(
        embed_dim=D,
        encoder=encoder,
        pooling=pooling,
        head=partial(MLPHead, num_classes=10, paired=paired, hidden_dims=[16], combine=nli_pair),
    ).eval()


def tokens(*shape):
    return torch.randint(1, 16, shape, generator=torch.Generator().manual_seed(1))


def test_size_at_skyformer_sizes_by_hand():
    """16 tokens and 2000 positions of width 64, 2 layers with FFN of 128, a head of 128."""
    cfg = compose("task=listops", "recipe=skyformer", "attention=softmax")
    model = instantiate(cfg.model)
    layer = 4 * (64 * 64 + 64) + (64 * 128 + 128) + (128 * 64 + 64) + 2 * 128
    head = (64 * 128 + 128) + (128 * 10 + 10)
    expected = 16 * 64 + 2000 * 64 + 2 * layer + 128 + head
    assert sum(p.numel() for p in model.parameters()) == expected == 205_706


@pytest.mark.parametrize("pooling", [MeanPooling, ClsPooling])
def test_padding_changes_no_logit(pooling):
    model = build(pooling=pooling)
    ids = tokens(3, N)
    mask = torch.zeros(3, N, dtype=torch.bool)
    mask[:, 7:] = True
    logits = model(ids, mask)
    soiled = torch.where(mask, 15 - ids % 15, ids)
    torch.testing.assert_close(model(soiled, mask), logits)
    torch.testing.assert_close(model(ids[:, :7], mask[:, :7]), logits)


def test_poolings_by_hand():
    x = torch.tensor([[[1.0], [3.0], [50.0], [60.0]]])
    mask = torch.tensor([[False, False, True, True]])
    assert MeanPooling(embed_dim=1)(x, mask).item() == 2.0
    assert PaddedMeanPooling(embed_dim=1)(x, mask).item() == 1.0
    assert UnmaskedMeanPooling(embed_dim=1)(x, mask).item() == 28.5
    assert ClsPooling(embed_dim=1)(x, mask).item() == 1.0


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(
    "pooling", [MeanPooling, PaddedMeanPooling, UnmaskedMeanPooling, ClsPooling]
)
def test_without_a_mask_no_row_has_padding(pooling, paired):
    model = build(pooling=pooling, paired=paired)
    ids = tokens(3, 2, N) if paired else tokens(3, N)
    logits = model(ids, torch.zeros_like(ids, dtype=torch.bool))
    torch.testing.assert_close(model(ids), logits)


def test_tokens_in_front_start_at_zero_and_take_the_first_positions():
    """Behind a silent mixer and FFN each state is the norm of embedding plus position."""
    front = encoder(embed_dim=D, num_front_tokens=1, num_layers=0)
    ids, mask = tokens(2, N), torch.arange(N) >= torch.tensor([[N], [4]])
    states, extended = front(ids, mask)
    position = front.positions.table
    assert position.shape == (N + 1, D)
    torch.testing.assert_close(states[:, 0], front.norm(position[:1]).expand(2, -1))
    torch.testing.assert_close(states[:, 1:], front.norm(front.embedding(ids) + position[1:]))
    assert extended.tolist() == [[False] * (N + 1), [False] * 5 + [True] * (N - 4)]
    assert [name for name, _ in build(pooling=ClsPooling).named_parameters() if "front" in name]


def test_pooling_of_nothing_is_finite():
    x, mask = torch.full((1, 3, 2), 5.0), torch.ones(1, 3, dtype=torch.bool)
    for pooling in (MeanPooling, PaddedMeanPooling):
        assert pooling(embed_dim=2)(x, mask).tolist() == [[0.0, 0.0]]


def test_a_pair_passes_through_one_encoder():
    model = build(paired=True)
    ids, mask = tokens(2, 2, N), torch.zeros(2, 2, N, dtype=torch.bool)
    mask[0, 1, 6:] = True
    pooled = []
    model.head.register_forward_pre_hook(lambda _, args: pooled.append(args[0]))
    model(ids, mask)
    model(ids.flip(1), mask.flip(1))
    torch.testing.assert_close(pooled[0], pooled[1].flip(1))
    single = build()
    single.load_state_dict(model.state_dict() | {
        f"head.{name}": value for name, value in single.head.state_dict().items()
    })  # fmt: skip
    alone = []
    single.head.register_forward_pre_hook(lambda _, args: alone.append(args[0]))
    single(ids[:, 1], mask[:, 1])
    torch.testing.assert_close(alone[0], pooled[0][:, 1])


def test_pair_heads_by_hand():
    pair = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    assert nli_pair(pair).tolist() == [[1.0, 2.0, 3.0, 5.0, 3.0, 10.0, -2.0, -3.0]]
    assert concatenate_pair(pair).tolist() == [[1.0, 2.0, 3.0, 5.0]]


@pytest.mark.parametrize("embed_dim", [4, 5])
def test_sinusoidal_positions_by_formula(embed_dim):
    x = SinusoidalPositions(max_seq_len=5, embed_dim=embed_dim)(torch.zeros(1, 4, embed_dim))[0]
    angles = [3 / 10_000 ** (2 * i / embed_dim) for i in range(3)]
    expected = [f(angle) for angle in angles for f in (math.sin, math.cos)][:embed_dim]
    torch.testing.assert_close(x[3], torch.tensor(expected))


def test_pixels_by_hand():
    """Grey values 0, 100 and 255 have ids 1, 101 and 256, a hidden one 0."""
    embedding = PixelEmbedding(embed_dim=2, mean=100.0, std=50.0)
    with torch.no_grad():
        embedding.linear.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        embedding.linear.bias.copy_(torch.tensor([0.0, 0.5]))
        embedding.mark.copy_(torch.tensor([7.0, 8.0]))
    expected = [[[-2.0, 4.5], [0.0, 0.5], [3.1, -5.7], [7.0, 8.5]]]
    ids = torch.tensor([[1, 101, 256, 0]])
    torch.testing.assert_close(embedding(ids), torch.tensor(expected))


@pytest.mark.parametrize(
    ("hidden_dims", "widths"),
    [([], [(5, 3)]), ([7], [(5, 7), (7, 3)]), ([7, 2], [(5, 7), (7, 2), (2, 3)])],
)
def test_widths_of_the_head(hidden_dims, widths):
    head = MLPHead(
        embed_dim=5, num_classes=3, paired=False, hidden_dims=hidden_dims, combine=nli_pair
    )
    linear = [module for module in head.mlp if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == widths
    assert len(head.mlp) == 2 * len(widths) - 1  # a ReLU between two of them


def test_heads_together_may_differ_from_the_width():
    attention = MultiheadAttention(
        max_seq_len=99, embed_dim=7, num_heads=3, qkv_dim=15, bias=False, attention=softmax
    )
    assert sorted(p.shape for p in attention.parameters()) == [(7, 15), (45, 7)]
    assert attention(torch.randn(2, N, 7)).shape == (2, N, 7)


def test_multihead_attention_is_that_of_torch():
    """The same projections in torch.nn.MultiheadAttention give the same output."""
    ours = MultiheadAttention(
        embed_dim=15, num_heads=3, max_seq_len=99, qkv_dim=15, bias=True, attention=softmax
    )
    theirs = nn.MultiheadAttention(15, 3, batch_first=True)
    theirs.in_proj_weight, theirs.in_proj_bias = ours.in_proj.weight, ours.in_proj.bias
    theirs.out_proj.weight, theirs.out_proj.bias = ours.out_proj.weight, ours.out_proj.bias
    x, mask = torch.randn(2, N, 15), torch.arange(N) >= torch.tensor([[N], [7]])
    expected, _ = theirs(x, x, x, key_padding_mask=mask)
    torch.testing.assert_close(ours(x, mask), expected)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="qkv_dim 10 is not a multiple of num_heads 3"):
        MultiheadAttention(
            embed_dim=9, num_heads=3, max_seq_len=99, qkv_dim=10, bias=True, attention=softmax
        )


def test_layers_are_pre_norm():
    """By torch's own layer with norm_first, and unchanged streams where sublayers are silent."""
    layer = EncoderLayer(
        embed_dim=D,
        max_seq_len=99,
        ffn_dim=12,
        activation=nn.GELU,
        dropout=0.0,
        mixer=partial(mixer, qkv_dim=D),
    )
    theirs = nn.TransformerEncoderLayer(
        D, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    names = {
        "mixer_norm": "norm1", "mixer.in_proj.": "self_attn.in_proj_",
        "mixer.out_proj": "self_attn.out_proj", "ffn_norm": "norm2",
        "ffn.0": "linear1", "ffn.3": "linear2",
    }  # fmt: skip
    state = {}
    for name, value in layer.state_dict().items():
        ours = next(prefix for prefix in names if name.startswith(prefix))
        state[name.replace(ours, names[ours])] = value
    theirs.load_state_dict(state)
    x = torch.randn(3, N, D)
    torch.testing.assert_close(layer(x), theirs(x))
    for module in (layer.mixer.out_proj, layer.ffn[3]):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("pooling", [MeanPooling, ClsPooling])
def test_a_token_is_asked_by_its_own_state(pooling):
    """At each place the head sees what it would see if that state were all that is pooled."""
    model = build(pooling=pooling)
    inputs, mask = tokens(3, N), torch.zeros(3, N, dtype=torch.bool)
    places = torch.tensor([[4, 0], [10, 3], [2, 2]])
    states, _ = model.encoder(inputs, mask)
    states = states[:, model.pooling.num_front_tokens :]
    expected = [[model.head(states[row, [p]])[0] for p in ps] for row, ps in enumerate(places)]
    expected = torch.stack([torch.stack(row) for row in expected])
    torch.testing.assert_close(model(inputs, mask, places), expected)
