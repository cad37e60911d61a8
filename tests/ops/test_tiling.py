"""How examples are cut into tiles, and which matrices their heads meet."""

import pytest
import torch
from torch.testing import assert_close

from macformer.ops import tiling


@pytest.mark.parametrize("most", [1, 3, 4, 7, 100])
def test_tiles_cover_every_token_once_and_name_what_they_hold(monkeypatch, most):
    monkeypatch.setattr(tiling, "TILE_NUMBERS", most)
    lengths = [5, 0, 3]
    rows, states = torch.randn(3, 4, 5, 2), torch.randn(3, 4, 6, 1)
    visits = torch.zeros(3, 4, 5, 1)
    for tile, parts, some in tiling.tiles((rows, visits, None), (states, None), lengths, 1):
        row, visit, nothing = parts
        visit += 1
        assert_close(row, rows[tile], rtol=0, atol=0)
        assert_close(some[0], states[tile[:2]], rtol=0, atol=0)
        assert nothing is None and some[1] is None
        assert len(row) == 1 or row.shape[1] == lengths[tile[0]]  # some tokens of one head
        assert row.shape[0] * row.shape[1] <= max(most, 1)
    expected = torch.arange(5) < torch.tensor(lengths)[:, None]
    assert_close(visits[..., 0], expected[:, None].expand(3, 4, 5).float(), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 1, 5, 2), (1, 4, 5, 2), (2, 4, 3, 2)])
def test_tensors_that_disagree_are_refused(monkeypatch, shape):
    """Tiles to the end of the shorter would leave memory as it was found."""
    monkeypatch.setattr(tiling, "TILE_NUMBERS", 1)
    with pytest.raises(ValueError, match="disagree"):
        list(tiling.tiles((torch.zeros(2, 4, 5, 2), torch.zeros(shape)), (), [5, 5], 1))


@pytest.mark.parametrize("num_matrices", [1, 2, 3])
def test_heads_of_the_next_example_begin_again(num_matrices):
    matrices = torch.randn(num_matrices, 3, 4)
    every = matrices.repeat(12 // num_matrices, 1, 1)
    taken, grads = tiling.HeadMatrices(matrices), torch.zeros_like(matrices)
    for start, stop in ((0, 1), (1, 3), (2, 7), (5, 7), (7, 12), (0, 12)):
        tile = 0, slice(start, stop), slice(0, 2)
        x = torch.randn(stop - start, 2, 3)
        assert_close(taken.of(x, tile), every[start:stop], rtol=0, atol=0)
        grads.zero_()
        tiling.add_of_heads(grads, torch.ones(stop - start, 3, 4), tile)
        expected = torch.bincount(torch.arange(start, stop) % num_matrices, minlength=num_matrices)
        assert_close(grads[:, 0, 0], expected.float(), rtol=0, atol=0)


@pytest.mark.parametrize(("batch", "length"), [(0, 3), (2, 0), (0, 0)])
def test_an_empty_batch_has_lengths(batch, length):
    mask = torch.zeros(batch, length, dtype=torch.bool)
    assert tiling.key_lengths(torch.zeros(batch, 2, length, 4), mask) == [length] * batch
