"""Floors of texts: n-grams, and how much of them a pair shares."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64, Integer, UInt64

from tasks.floors.measure import Floor
from tasks.floors.models import linear, standardised, threshold
from tasks.floors.sample import Sample

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Longer documents are cut, as every protocol cuts them.
_MAX_LEN = 4000
_BUCKET_BITS = 18
_OVERLAP_BITS = 16
_OVERLAP_LENGTHS = (3, 5, 8)
_PAIRS_AT_ONCE = 256

# Odd and without pattern: the golden ratio's fraction, and a prime for the polynomial.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(1_000_003)


def floors_of_texts(*, max_rows: int) -> dict[str, Floor]:
    """Name the floors of texts of any tokens.

    Args:
        max_rows: The most that a predictor is fitted to.
    """
    return {
        "tokens": Floor(
            "logistic regression on which tokens occur in the first 4,000",
            partial(predict_by_ngrams, lengths=(1,), strength=10.0),
            max_rows=max_rows,
        ),
        "ngrams": Floor(
            "logistic regression on which 3- to 5-grams of tokens occur in the first 4,000, "
            "hashed to 2^18 columns",
            partial(predict_by_ngrams, lengths=(3, 4, 5), strength=10.0),
            max_rows=max_rows,
        ),
    }


def floor_of_pairs(*, max_rows: int) -> Floor:
    """Name the floor of pairs of texts: how much they share.

    Args:
        max_rows: The most that the predictor is fitted to.
    """
    return Floor(
        "logistic regression on the cosines between the sets of 3-, 5- and 8-grams of the first "
        "4,000 tokens, hashed to 2^16 buckets, and the logarithms of the numbers read",
        predict_by_overlap,
        max_rows=max_rows,
    )


def predict_by_ngrams(
    train: Sample, test: Sample, *, lengths: Sequence[int], strength: float
) -> Int64[np.ndarray, "rows"]:
    """Classify by a linear model of which n-grams occur."""
    matrices = [ngrams(sample, lengths=lengths) for sample in (train, test)]
    return linear(matrices[0], train.labels, matrices[1], strength=strength)


def predict_by_overlap(train: Sample, test: Sample) -> Int64[np.ndarray, "rows"]:
    """Classify pairs by a linear model of the shares of n-grams in common and the lengths."""
    features = standardised(_overlaps(train), _overlaps(test))
    return linear(features[0], train.labels, features[1], strength=1.0)


def predict_by_overlap_threshold(train: Sample, test: Sample) -> Int64[np.ndarray, "rows"]:
    """Classify pairs by one threshold on the share of 5-grams in common."""
    column = _OVERLAP_LENGTHS.index(5)
    return threshold(_overlaps(train)[:, column], train.labels, _overlaps(test)[:, column])


def ngrams(sample: Sample, *, lengths: Sequence[int]) -> "csr_array":
    """Mark the n-grams of each document, hashed to 2^18 columns; rows have the norm 1."""
    from scipy.sparse import csr_array

    columns = [
        np.unique(np.concatenate([_hash_ngrams(text, n, bits=_BUCKET_BITS) for n in lengths]))
        for text in sample.texts(sample.documents)
    ]
    sizes = np.array([column.size for column in columns])
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    indices = np.concatenate(columns).astype(np.int32)
    return csr_array((values, indices, ends), shape=(len(columns), 2**_BUCKET_BITS))


def _hash_ngrams(
    text: Integer[np.ndarray, "_"], length: int, *, bits: int
) -> UInt64[np.ndarray, "_"]:
    values = text[:_MAX_LEN].astype(np.uint64)
    num_ngrams = max(len(values) - length + 1, 0)
    hashes = np.full(num_ngrams, length, dtype=np.uint64)
    for i in range(length):
        hashes = hashes * _BASE + values[i : i + num_ngrams] + np.uint64(1)
    return (hashes * _MIX) >> np.uint64(64 - bits)


def _overlaps(sample: Sample) -> Float64[np.ndarray, "pairs features"]:
    """Return the cosine between the n-gram sets of a pair for each length, and log-lengths."""
    documents, places = np.unique(sample.documents, return_inverse=True)
    places = places.reshape(sample.documents.shape)
    columns = [_cosines(sample, documents, places, length) for length in _OVERLAP_LENGTHS]
    lengths = np.log1p(np.minimum(np.diff(sample.offsets), _MAX_LEN)[documents])[places]
    return np.stack([*columns, lengths.min(axis=1), lengths.max(axis=1)], axis=1)


def _cosines(
    sample: Sample,
    documents: Int[np.ndarray, "documents"],
    places: Int[np.ndarray, "pairs 2"],
    length: int,
) -> Float32[np.ndarray, "pairs"] | Float64[np.ndarray, "pairs"]:
    # A set is a row of bits, so that a pair's intersection is one AND.
    sets = np.zeros((len(documents), 2**_OVERLAP_BITS // 64), dtype=np.uint64)
    for row, text in zip(sets, sample.texts(documents), strict=True):
        is_there = np.zeros(2**_OVERLAP_BITS, dtype=bool)
        is_there[_hash_ngrams(text, length, bits=_OVERLAP_BITS)] = True
        row[:] = np.packbits(is_there).view(np.uint64)
    sizes = np.bitwise_count(sets).sum(axis=1, dtype=np.int64)
    common = [
        np.bitwise_count(sets[pairs[:, 0]] & sets[pairs[:, 1]]).sum(axis=1, dtype=np.int64)
        for pairs in np.array_split(places, -(-len(places) // _PAIRS_AT_ONCE))
    ]
    norms = np.sqrt(np.maximum(sizes[places].prod(axis=1), 1))
    return np.concatenate(common) / norms
