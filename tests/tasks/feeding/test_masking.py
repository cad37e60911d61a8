"""Hidden tokens are those that are asked for, and nothing else changes."""

from functools import partial

import pytest
import torch

from tasks.errors import DataError
from tasks.feeding.batches import EvaluationBatches, TrainingBatches
from tasks.feeding.collate import gather_batch
from tasks.feeding.masking import HiddenTokens, HiddenTokensOfSplit, hide_tokens
from tasks.store.rows import SeriesRows, TokenRows

LENGTHS = torch.tensor([20, 12, 3, 1])


def make_batch(lengths=LENGTHS, width=20):
    mask = torch.arange(width) >= lengths[:, None]
    inputs = torch.randint(1, 50, mask.shape).masked_fill(mask, 0)
    return {"inputs": inputs, "key_padding_mask": mask, "labels": torch.zeros(len(lengths))}


def hide(batch, *, share, seed=0):
    num_asked = max(1, round(share * 20))
    generator = torch.Generator().manual_seed(seed)
    return hide_tokens(batch, share=share, num_asked=num_asked, generator=generator)


def test_rows_are_asked_for_what_they_lost():
    batch = make_batch()
    hidden = hide(batch, share=0.5)
    labels, places = hidden["labels"], hidden["places"]
    assert places.shape == labels.shape == (4, 10)
    assert torch.equal(batch["inputs"].gather(1, places), labels)
    assert (hidden["inputs"].gather(1, places) == 0).all()
    lost = torch.zeros_like(batch["inputs"], dtype=torch.bool).scatter(1, places, True)
    assert torch.equal(hidden["inputs"][~lost], batch["inputs"][~lost])
    assert torch.equal(hidden["key_padding_mask"], batch["key_padding_mask"])


@pytest.mark.parametrize(("share", "counts"), [(0.5, [10, 6, 2, 1]), (0.15, [3, 2, 1, 1])])
def test_each_row_loses_its_share_and_at_least_one_token(share, counts):
    """Of 20, 12, 3 and 1 tokens; halves are rounded to even. No padding is among them."""
    batch = make_batch()
    hidden = hide(batch, share=share)
    assert [len(set(row.tolist())) for row in hidden["places"]] == counts
    assert not batch["key_padding_mask"].gather(1, hidden["places"]).any()


def test_rows_without_a_mask_lose_what_full_rows_lose():
    full = make_batch(torch.full((4,), 20))
    bare = {name: full[name] for name in ("inputs", "labels")}
    hidden, expected = hide(bare, share=0.3), hide(full, share=0.3)
    assert set(hidden) == {"inputs", "places", "labels"}
    assert all(torch.equal(hidden[name], expected[name]) for name in hidden)


def test_rows_of_a_narrow_batch_are_asked_as_often_as_those_of_a_wide_one():
    hidden = hide(make_batch(torch.tensor([8, 3]), width=8), share=0.5)
    assert hidden["places"].shape == (2, 10)
    assert [len(set(row.tolist())) for row in hidden["places"]] == [4, 2]


def test_every_token_is_as_likely():
    batch = make_batch(torch.full((4000,), 20))
    hidden = hide(batch, share=0.25)
    counts = torch.bincount(hidden["places"].flatten(), minlength=20).float()
    error = (4000 * 0.25 * 0.75) ** 0.5
    assert ((counts - 1000).abs() < 4.5 * error).all()


def test_documents_of_a_pair_are_rows():
    single = [make_batch(), make_batch()]
    paired = {
        name: torch.stack([batch[name] for batch in single], dim=1)
        for name in ("inputs", "key_padding_mask")
    }
    hidden = hide(paired, share=0.5)
    assert hidden["inputs"].shape == (8, 20) and hidden["labels"].shape == (8, 10)
    originals = paired["inputs"].flatten(0, 1)
    assert torch.equal(originals.gather(1, hidden["places"]), hidden["labels"])


def stream(*, start, rank=0, seed=3):
    rows = TokenRows(
        ids=torch.randint(0, 50, (400,), generator=torch.Generator().manual_seed(1)),
        offsets=torch.arange(0, 401, 10),
        documents=torch.arange(40),
        labels=torch.zeros(40, dtype=torch.int64),
        first_id=1,
    )
    gather = partial(gather_batch, rows, max_len=10, padded_len=10, masked=False)
    options = {"batch_size": 4, "rank": rank, "num_ranks": 2, "bucket_by_length": False}
    batches = TrainingBatches(rows, gather=gather, start=start, seed=seed, **options)
    batches = HiddenTokens(batches, share=0.3, num_asked=3, seed=seed)
    return [
        {**batch, "step": torch.tensor(step)}
        for step, batch in zip(range(start, 12), batches, strict=False)
    ]


def test_a_resumed_stream_hides_what_it_would_have_hidden():
    whole, rest = stream(start=0), stream(start=7)
    for batch, expected in zip(rest, whole[7:], strict=True):
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_what_is_hidden_is_drawn_alike_for_rows_on_any_device():
    """No generator is made where the rows are; the meta device has none."""

    class OnMeta(EvaluationBatches):
        def __init__(self):
            pass

        def __iter__(self):
            yield {name: x.to("meta") for name, x in make_batch().items()}

    (hidden,) = HiddenTokensOfSplit(OnMeta(), share=0.3, num_asked=6)
    assert hidden["places"].device.type == "meta"


def test_steps_ranks_and_seeds_hide_other_tokens():
    places = [stream(start=0, rank=0)[0], stream(start=0, rank=1)[0], stream(start=0, seed=4)[0]]
    places.append(stream(start=0)[1])
    distinct = {tuple(batch["places"].flatten().tolist()) for batch in places}
    assert len(distinct) == 4


def test_rows_of_numbers_have_nothing_to_hide(tmp_path, plain_data_module):
    rows = SeriesRows(
        values=torch.zeros(4, 2),
        offsets=torch.tensor([0, 2, 4]),
        documents=torch.arange(2),
        labels=torch.arange(2),
    )
    data = plain_data_module(
        prepare=lambda folder: folder,
        load=lambda folder, split: rows,
        data_dir=tmp_path,
        batch_size=1,
        max_seq_len=2,
        padded_len=2,
        hidden_share=0.5,
    )
    with pytest.raises(DataError, match="hold numbers"):
        data.setup()
