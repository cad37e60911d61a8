"""Make a batch: the one place where rows of different lengths become a rectangle."""

import torch
from jaxtyping import Int
from torch import Tensor

from tasks.store.rows import TokenRows

PADDING_ID = 0


def gather_batch(
    rows: TokenRows,
    indices: Int[Tensor, "B"],
    *,
    max_len: int,
    padded_len: int | None,
    multiple_of: int = 1,
) -> dict[str, Tensor]:
    """Cut rows at max_len, pad them with 0 and stack them, in one gather on the rows' device.

    Args:
        padded_len: At least max_len; None pads to the longest row of the batch.
        multiple_of: Of which that longest row's length becomes a multiple, up to max_len.

    Returns:
        inputs (int64) and key_padding_mask (bool, True at padding), both (B, N), or (B, 2, N)
        for pairs; labels (int64), (B,), or (B, Q) with places (int64) where rows are asked at
        tokens of theirs.
    """
    documents = rows.documents[indices]
    starts = rows.offsets[documents]
    lengths = rows.offsets[documents + 1] - starts
    num_special = 0 if rows.eos_id is None else 1
    lengths = lengths.clamp(max=max_len - num_special)
    if padded_len is None:
        longest = int(lengths.max()) + num_special
        width = min(-(-longest // multiple_of) * multiple_of, max_len)
    else:
        width = padded_len
    columns = torch.arange(width, device=rows.ids.device)
    is_padding = columns >= lengths.unsqueeze(-1)
    positions = (starts.unsqueeze(-1) + columns).masked_fill_(is_padding, 0)
    inputs = (rows.ids[positions].long() + rows.first_id).masked_fill_(is_padding, PADDING_ID)
    if rows.eos_id is not None:
        inputs.scatter_(-1, lengths.unsqueeze(-1), rows.eos_id)
        is_padding = columns > lengths.unsqueeze(-1)
    if rows.zero_is_padding:
        is_padding = inputs == PADDING_ID
    batch = {
        "inputs": inputs,
        "key_padding_mask": is_padding,
        "labels": rows.labels[indices].long(),
    }
    return batch if rows.places is None else batch | {"places": rows.places[indices].long()}
