"""Trimming batches and bucketing by length change the time that a model takes, not its logits."""

from functools import partial

import pytest
import torch

from macformer.runs.build import build_model
from macformer.runs.config import compose
from tasks.feeding.batches import EvaluationBatches
from tasks.feeding.collate import gather_batch
from tasks.store.rows import TokenRows

NUM_ROWS = 23
MAX_SEQ_LEN = 17


@pytest.fixture(scope="module")
def rows() -> TokenRows:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 29, (NUM_ROWS,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return TokenRows(
        ids=torch.randint(1, 16, (int(offsets[-1]),), generator=generator, dtype=torch.uint8),
        offsets=offsets,
        documents=torch.arange(NUM_ROWS),
        labels=torch.zeros(NUM_ROWS, dtype=torch.uint8),
        first_id=0,
    )


@pytest.fixture(scope="module", params=["softmax", "rmfa_exp"])
def model(request) -> torch.nn.Module:
    cfg = compose(
        "task=listops_short",
        "recipe=smoke",
        f"attention={request.param}",
        f"max_seq_len={MAX_SEQ_LEN}",
    )
    torch.manual_seed(0)
    return build_model(cfg).double().eval()


def logits_of(
    model, rows, *, trim_batches, bucket_by_length, multiple_of=1
) -> tuple[torch.Tensor, int]:
    """Return the logits of each row, in the order of the rows, and the positions computed."""
    padded_len = None if trim_batches else MAX_SEQ_LEN
    lengths = {"max_len": MAX_SEQ_LEN, "padded_len": padded_len, "multiple_of": multiple_of}
    batches = EvaluationBatches(
        rows,
        gather=partial(gather_batch, rows, **lengths),
        batch_size=5,
        rank=0,
        num_ranks=1,
        limit=None,
        bucket_by_length=bucket_by_length,
    )
    logits = torch.empty(NUM_ROWS, 10, dtype=torch.float64)
    num_positions = 0
    with torch.no_grad():
        for indices, batch in zip(batches.batches, batches, strict=True):
            logits[indices] = model(batch["inputs"], batch["key_padding_mask"])
            num_positions += batch["inputs"].numel()
    return logits, num_positions


def test_logits_stay_the_same(model, rows):
    expected, most = logits_of(model, rows, trim_batches=False, bucket_by_length=False)
    trimmed, fewer = logits_of(model, rows, trim_batches=True, bucket_by_length=False)
    bucketed, fewest = logits_of(model, rows, trim_batches=True, bucket_by_length=True)
    coarse, between = logits_of(
        model, rows, trim_batches=True, bucket_by_length=True, multiple_of=8
    )
    # The order of float64 sums is all that differs.
    torch.testing.assert_close(trimmed, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(bucketed, expected, rtol=1e-9, atol=1e-12)
    assert most == NUM_ROWS * MAX_SEQ_LEN
    torch.testing.assert_close(coarse, expected, rtol=1e-9, atol=1e-12)
    assert fewest < between < most and fewest < fewer <= most
