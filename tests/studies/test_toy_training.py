"""The tiny tasks, and what counts as a diverged training."""

import math
from itertools import islice

import pytest
import torch

from macformer.studies.ppsbn import measure
from macformer.studies.reverse import reverse_batches
from macformer.studies.toy_training import Outcome, evaluate, label_entropy


def test_labels_are_the_sequence_backwards():
    (batch,) = islice(reverse_batches(batch_size=5, seq_len=7, num_symbols=3, seed=0), 1)
    ids, labels = batch["inputs"], batch["labels"].view(5, 7)
    assert ids.min() >= 1 and ids.max() <= 3 and len(ids.unique()) == 3
    for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
        assert [symbol + 1 for symbol in label] == row[::-1]
    assert set(batch) == {"inputs", "labels"}


def test_batches_differ_and_their_stream_is_reproducible():
    options = {"batch_size": 2, "seq_len": 11, "num_symbols": 5}
    first, second = islice(reverse_batches(**options, seed=0), 2)
    (again,) = islice(reverse_batches(**options, seed=0), 1)
    (other,) = islice(reverse_batches(**options, seed=1), 1)
    assert torch.equal(first["inputs"], again["inputs"])
    assert not torch.equal(first["inputs"], second["inputs"])
    assert not torch.equal(first["inputs"], other["inputs"])


def test_entropy_by_hand():
    assert label_entropy(torch.tensor([0, 1, 2, 3])) == pytest.approx(math.log(4))
    assert label_entropy(torch.tensor([5, 5])) == 0
    half = torch.tensor([0, 0, 1, 2])
    assert label_entropy(half) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


@pytest.mark.parametrize(
    ("loss", "gradient", "expected"),
    [
        (1.0, 1.0, False),
        (2.1, 1.0, False),
        (2.3, 1.0, True),
        (math.nan, 1.0, True),
        (1.0, math.inf, True),
        (1.0, math.nan, True),
    ],
)
def test_divergence(loss, gradient, expected):
    outcome = Outcome(
        accuracy=0.5,
        error=0.1,
        loss=loss,
        chance=2.0,
        gradient_norm=1.0,
        largest_gradient_norm=gradient,
    )
    assert outcome.diverged is expected


def test_evaluation_weighs_labels_alike():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])

    class Fixed(torch.nn.Module):
        def forward(self, inputs, key_padding_mask):
            return logits[: len(inputs)]

    def batch(labels):
        ids = torch.zeros(len(labels), 1, dtype=torch.long)
        return {"inputs": ids, "key_padding_mask": ids > 0, "labels": torch.tensor(labels)}

    loss, right_rows = evaluate(Fixed(), [batch([0, 1, 1]), batch([1])])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert right_rows.tolist() == [1, 1, 0, 0]
    assert loss == pytest.approx((2 * right + 2 * wrong) / 4)


@pytest.mark.parametrize(
    ("attention", "low", "high"), [("softmax", 0.9, 1.0), ("uniform", 0.15, 0.4)]
)
def test_reversal_needs_attention(compose_study, attention, low, high):
    cfg = compose_study("study=ppsbn")
    point = {"task": "reverse", "attention": attention, "ppsbn": "without", "num_steps": 100}
    (row,) = measure({**point, "batch_size": 32, "input_scale": 1.0, "seed": 0}, cfg)
    assert low <= row["accuracy"] <= high
    assert not row["diverged"] and row["gradient_norm"] > 0
    assert row["chance"] == pytest.approx(math.log(8), abs=0.01)
