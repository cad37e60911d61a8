"""Make a batch: the one place where rows of different lengths become a rectangle."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tasks.store.rows import Rows, SeriesRows, TokenRows

PADDING_ID = 0


def gather_batch(
    rows: Rows,
    indices: Int[Tensor, "B"],
    *,
    max_len: int,
    padded_len: int | None,
    multiple_of: int = 1,
    masked: bool = True,
) -> dict[str, Tensor]:
    """Cut rows at max_len, pad them with 0 and stack them, in one gather on the rows' device.

    Args:
        padded_len: At least max_len; None pads to the longest row of the batch.
        multiple_of: Of which that longest row's length becomes a multiple, up to max_len.
        masked: Whether the batch says where padding is; for rows without any it need not.

    Returns:
        inputs (int64) and, if masked, key_padding_mask (bool, True at padding), both (B, N), or
        (B, 2, N) for pairs; for series inputs are float32 (B, N, C). labels (int64), (B,), or
        (B, Q) with places (int64) where rows are asked at tokens of theirs.
    """
    documents = rows.documents[indices]
    starts = rows.offsets[documents]
    num_special = 1 if isinstance(rows, TokenRows) and rows.eos_id is not None else 0
    lengths = (rows.offsets[documents + 1] - starts).clamp(max=max_len - num_special)
    if padded_len is None:
        width = _trimmed_width(int(lengths.max()) + num_special, multiple_of, max_len)
    else:
        width = padded_len
    columns = torch.arange(width, device=rows.device)
    is_padding = columns >= lengths.unsqueeze(-1)
    positions = (starts.unsqueeze(-1) + columns).masked_fill_(is_padding, 0)
    if isinstance(rows, SeriesRows):
        inputs = rows.values[positions].masked_fill_(is_padding.unsqueeze(-1), 0)
    else:
        inputs, is_padding = _tokens(rows, positions, is_padding, lengths)
    batch = {"inputs": inputs}
    if masked:
        batch["key_padding_mask"] = is_padding
    batch["labels"] = rows.labels[indices].long()
    if isinstance(rows, TokenRows) and rows.places is not None:
        batch["places"] = rows.places[indices].long()
    return batch


def has_padding(
    rows: Rows,
    indices: Int[Tensor, "n"],
    *,
    max_len: int,
    padded_len: int | None,
    multiple_of: int = 1,
) -> bool:
    """Say whether batches made of these rows may hold padding.

    Where rows come in trimmed batches nobody knows of which: only rows of one length have none.

    Args:
        max_len: As in :func:`gather_batch`, like padded_len and multiple_of.
    """
    if isinstance(rows, TokenRows) and rows.zero_is_padding:
        return True
    lengths = rows.lengths(indices.to(rows.device)).clamp(max=max_len)
    longest = int(lengths.max())
    width = padded_len or _trimmed_width(longest, multiple_of, max_len)
    return int(lengths.min()) < width


def _trimmed_width(longest: int, multiple_of: int, max_len: int) -> int:
    return min(-(-longest // multiple_of) * multiple_of, max_len)


def _tokens(
    rows: TokenRows,
    positions: Int[Tensor, "*rows N"],
    is_padding: Bool[Tensor, "*rows N"],
    lengths: Int[Tensor, "*rows"],
) -> tuple[Int[Tensor, "*rows N"], Bool[Tensor, "*rows N"]]:
    """Return ids and what of them is padding."""
    inputs = (rows.ids[positions].long() + rows.first_id).masked_fill_(is_padding, PADDING_ID)
    if rows.eos_id is not None:
        inputs.scatter_(-1, lengths.unsqueeze(-1), rows.eos_id)
        columns = torch.arange(inputs.shape[-1], device=inputs.device)
        is_padding = columns > lengths.unsqueeze(-1)
    if rows.zero_is_padding:
        is_padding = inputs == PADDING_ID
    return inputs, is_padding
