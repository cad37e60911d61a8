"""The model that reverses sequences."""

import torch

from macformer.runs.config import compose
from macformer.studies.tagger import build_tagger


def test_a_tagger_labels_each_token_behind_those_in_front():
    cell = compose(
        "task=listops_short",
        "recipe=smoke",
        "recipe.default.pooling._target_=macformer.models.ClsPooling",
    )
    tagger = build_tagger(cell, num_symbols=3).eval()
    assert tagger.encoder.num_front_tokens == 1
    ids, mask = torch.randint(1, 16, (2, 11)), torch.zeros(2, 11, dtype=torch.bool)
    states, _ = tagger.encoder(ids, mask)
    expected = torch.cat([tagger.head(row[1:]) for row in states])
    torch.testing.assert_close(tagger(ids, mask), expected)
