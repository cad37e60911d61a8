"""Values are standardised by channel, and what is missing counts as the mean."""

import pytest
import torch

from macformer.models import SeriesEmbedding

MEAN, STD = [1.0, -2.0, 10.0], [2.0, 0.5, 4.0]


@pytest.mark.parametrize("missing", ["refuse", "indicator"])
@pytest.mark.parametrize("patch", [1, 2])
def test_a_patch_is_standardised_step_by_step_and_gaps_are_marked(missing, patch):
    embedding = SeriesEmbedding(embed_dim=5, mean=MEAN, std=STD, patch=patch, missing=missing)
    z = torch.randn(2, 7, patch, 3, generator=torch.Generator().manual_seed(0))
    inputs = z * torch.tensor(STD) + torch.tensor(MEAN)
    inputs[1, 4, 0, 2] = torch.nan
    z[1, 4, 0, 2] = 0
    columns = [z.flatten(2)]
    if missing == "indicator":
        columns.append(inputs.isnan().float().flatten(2))
    expected = torch.cat(columns, -1) @ embedding.linear.weight.T + embedding.linear.bias
    torch.testing.assert_close(embedding(inputs.flatten(2)), expected, rtol=1e-4, atol=1e-5)


def test_the_statistics_move_with_the_module_and_are_no_weights():
    embedding = SeriesEmbedding(embed_dim=5, mean=MEAN, std=STD, patch=1, missing="refuse")
    assert set(embedding.state_dict()) == {"linear.weight", "linear.bias"}
    assert embedding.double().mean.dtype == torch.float64
