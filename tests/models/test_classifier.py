"""The classifier: its size by hand, its poolings and its pairs."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from macformer.attention import SoftmaxAttention
from macformer.models import (
    ClsPooling,
    LearnedPositions,
    MeanPooling,
    MLPHead,
    PaddedMeanPooling,
    SequenceClassifier,
    SinusoidalPositions,
    TokenEmbedding,
    nli_pair,
)

N, D = 11, 8


def build(*, paired=False, pooling=MeanPooling, embed_dim=D, **changes) -> SequenceClassifier:
    torch.manual_seed(0)
    options = {"max_seq_len": N, "num_layers": 2, "num_heads": 2, "ffn_dim": 12, "dropout": 0.0}
    return SequenceClassifier(
        **(options | changes),
        embed_dim=embed_dim,
        attention=SoftmaxAttention,
        embedding=partial(TokenEmbedding, vocab_size=16, std=1.0),
        positions=partial(LearnedPositions, std=1.0),
        pooling=pooling,
        head=partial(
            MLPHead, num_classes=10, paired=paired, hidden_dim=2 * embed_dim, combine=nli_pair
        ),
    ).eval()


def tokens(*shape):
    return torch.randint(1, 16, shape, generator=torch.Generator().manual_seed(1))


def test_size_at_skyformer_sizes_by_hand():
    model = build(embed_dim=64, ffn_dim=128, max_seq_len=2000)
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
    longer, longer_mask = ClsPooling(embed_dim=1).extend(x, mask)
    assert longer.flatten().tolist() == [0.0, 1.0, 3.0, 50.0, 60.0]
    assert longer_mask.tolist() == [[False, False, False, True, True]]


def test_pair_passes_through_one_encoder():
    model = build(paired=True)
    ids, mask = tokens(2, 2, N), torch.zeros(2, 2, N, dtype=torch.bool)
    pooled = []
    model.head.register_forward_pre_hook(lambda _, args: pooled.append(args[0]))
    model(ids, mask)
    model(ids.flip(1), mask)
    torch.testing.assert_close(pooled[0], pooled[1].flip(1))


def test_nli_head_by_hand():
    pair = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    assert nli_pair(pair).tolist() == [[1.0, 2.0, 3.0, 5.0, 3.0, 10.0, -2.0, -3.0]]


def test_sinusoidal_positions_by_formula():
    x = SinusoidalPositions(max_seq_len=5, embed_dim=4)(torch.zeros(1, 5, 4))[0]
    expected = [math.sin(3), math.cos(3), math.sin(3 / 100), math.cos(3 / 100)]
    torch.testing.assert_close(x[3], torch.tensor(expected))


def test_layers_are_pre_norm():
    """With every sublayer silenced the stream passes through unchanged."""
    layer = build().layers[0]
    for module in (layer.attention.out_proj, layer.ffn[3]):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    x = torch.randn(1, N, D)
    assert torch.equal(layer(x), x)
