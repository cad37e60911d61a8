"""Segment means against the loop, in both directions."""

import pytest
import torch
from torch.testing import assert_close

from macformer.ops import segment_means
from macformer.ops.segments import segment_means_reference

MASKS = {
    "none": None,
    "behind": torch.arange(13) >= torch.tensor([[13], [9], [1]]),
    "in_front": torch.arange(13) < torch.tensor([[0], [4], [12]]),
    "between": torch.rand(3, 13, generator=torch.Generator().manual_seed(1)) < 0.5,
    "all_of_one": torch.tensor([[False], [True], [False]]).expand(3, 13),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("num_segments", [1, 3, 4, 12, 13, 14, 29])
def test_means_are_those_of_the_loop(mask, num_segments):
    x = torch.randn(3, 2, 13, 5, dtype=torch.float64)
    mask = MASKS[mask]
    if mask is not None:
        x.masked_fill_(mask[:, None, :, None], torch.nan)
    x.requires_grad_()
    means, is_empty = segment_means(x, num_segments=num_segments, padding_mask=mask)
    expected, expected_empty = segment_means_reference(
        x, num_segments=num_segments, padding_mask=mask
    )
    assert torch.equal(is_empty, expected_empty)
    assert_close(means, expected)
    weight = torch.randn_like(means)
    (grad,) = torch.autograd.grad((means * weight).sum(), x)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x)
    assert_close(grad, expected_grad)


def test_half_precision_is_averaged_in_float32():
    """1,000 ones and as many small numbers, whose sum bfloat16 would lose."""
    x = torch.full((1, 1, 1000, 1), 1.01).bfloat16()
    means, _ = segment_means(x, num_segments=1)
    assert means.dtype == torch.float32
    assert_close(means.item(), x[0, 0, 0, 0].item())
