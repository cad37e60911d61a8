"""What floors see of a row, against plain Python."""

import numpy as np
import pytest
from scipy import ndimage

from tasks.floors import sequences
from tasks.floors.pictures import (
    dots,
    predict_by_dots,
    predict_by_means,
    predict_by_pixels,
    predict_by_statistics,
    statistics,
)
from tasks.floors.sample import Sample
from tasks.floors.sequences import (
    ngrams,
    predict_by_ngrams,
    predict_by_overlap,
    predict_by_overlap_threshold,
)


def sample_of(documents, labels, *, pairs=None) -> Sample:
    lengths = [len(document) for document in documents]
    return Sample(
        items=np.concatenate([np.asarray(document, dtype=np.uint8) for document in documents]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        documents=np.arange(len(documents)) if pairs is None else np.asarray(pairs),
        labels=np.asarray(labels),
    )


def test_ngrams_are_marked_once_and_rows_have_norm_1():
    texts = [b"abcabcabc", b"xyz", b"a"]
    matrix = ngrams(sample_of([list(text) for text in texts], [0, 1, 1]), lengths=(2, 3))
    # ab bc ca abc bca cab; xy yz xyz; nothing.
    assert np.diff(matrix.indptr).tolist() == [6, 3, 0]
    assert np.linalg.norm(matrix.toarray(), axis=1) == pytest.approx([1, 1, 0])


def test_a_word_is_seen_by_ngrams_and_not_by_letters():
    rng = np.random.default_rng(3)

    def reviews(num_rows: int) -> Sample:
        documents, labels = [], rng.integers(0, 2, num_rows)
        for label in labels:
            letters = rng.permutation(list(b"abcdefghijklmno" * 2))
            # One word or its letters in another order.
            documents.append([*letters[:17], *(b"good" if label else b"dogo"), *letters[17:]])
        return sample_of(documents, labels)

    train, test = reviews(300), reviews(200)
    for lengths, low, high in (((1,), 0.3, 0.7), ((3, 4), 0.97, 1)):
        predicted = predict_by_ngrams(train, test, lengths=lengths, strength=10.0)
        assert low <= np.mean(predicted == test.labels) <= high


def test_overlap_is_the_cosine_between_sets_of_ngrams():
    texts = [b"the quick brown fox", b"the quick red fox", b"a lazy dog sleeps on"]
    pairs = [[0, 1], [1, 2], [0, 0]]
    found = sequences._overlaps(sample_of([list(t) for t in texts], [0, 1, 1], pairs=pairs))
    for column, n in enumerate(sequences._OVERLAP_LENGTHS):
        sets = [{text[i : i + n] for i in range(len(text) - n + 1)} for text in texts]
        expected = [len(sets[a] & sets[b]) / (len(sets[a]) * len(sets[b])) ** 0.5 for a, b in pairs]
        assert found[:, column] == pytest.approx(expected)
    assert found[0, 3:] == pytest.approx(np.log1p([17, 19]))


def test_pairs_that_share_words_are_found():
    rng = np.random.default_rng(3)
    words = [bytes(rng.integers(97, 123, 8).tolist()) for _ in range(400)]
    documents, labels = [], rng.integers(0, 2, 300)
    for label in labels:
        first, second = (rng.choice(400, 20, replace=False) for _ in range(2))
        second[: 8 * label] = first[: 8 * label]
        documents += [list(b" ".join(words[i] for i in side)) for side in (first, second)]
    pairs = np.arange(600).reshape(-1, 2)
    sample = sample_of(documents, labels, pairs=pairs)
    for predict in (predict_by_overlap, predict_by_overlap_threshold):
        assert np.mean(predict(sample, sample) == labels) > 0.97


def draw_dots(places, *, size=32):
    y, x = np.mgrid[:size, :size]
    pictures = np.zeros((len(places), size, size), dtype=np.uint8)
    for picture, pair in zip(pictures, places, strict=True):
        for column, row in pair:
            picture[np.hypot(x - column, y - row) <= 1.5] = 255
    return pictures


def test_dots_are_found_and_the_inner_one_comes_first():
    pictures = draw_dots([[(3, 4), (16, 17)], [(15.0, 20.0), (28, 28)]])
    pictures[0, 25, 5:30] = 200
    features = dots(pictures, radius=1.5)
    centre = 15.5
    assert features[0, :4].tolist() == [0.5, 1.5, 3 - centre, 4 - centre]
    assert features[1, :4].tolist() == [-0.5, 4.5, 12.5, 12.5]
    assert features[:, 4] == pytest.approx([np.hypot(0.5, 1.5), np.hypot(0.5, 4.5)])
    assert features[:, 6] == pytest.approx([np.hypot(13, 13), np.hypot(13, 8)])


def test_statistics_are_those_of_each_picture_alone():
    rng = np.random.default_rng(3)
    pictures = (rng.random((40, 9, 9)) < 0.3) * rng.integers(1, 256, (40, 9, 9))
    pictures[[0, 7, 8, 39]] = 0
    pictures = pictures.astype(np.uint8)
    found = statistics(pictures)
    for row, picture in zip(found, pictures, strict=True):
        lit = picture > 40
        _, num_components = ndimage.label(lit, np.ones((3, 3)))
        expected = [picture.sum(), (picture.astype(int) ** 2).sum(), (picture == 0).sum()]
        assert row[:6].tolist() == [*expected, lit.sum(), (picture == 255).sum(), num_components]
        place = np.arange(9) - 4
        total = max(int(picture.sum()), 1)
        # Columns: x, then y.
        assert row[6] == pytest.approx((picture * place).sum() / total)
        assert row[9] == pytest.approx((picture * place[:, None] ** 2).sum() / total)


def test_a_leak_of_the_label_is_seen():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    angle = rng.uniform(0, 2 * np.pi, 400)
    # The dots of one class are 6 apart, of the other 10: round a circle, no line tells them apart.
    offset = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (3 + 2 * labels)[:, None]
    centre = rng.uniform(10, 21, (400, 2))
    pictures = draw_dots(np.round(np.stack([centre - offset, centre + offset], axis=1)))
    sample = sample_of([picture.ravel() for picture in pictures], labels)
    by_dots = predict_by_dots(sample, sample, size=32, radius=1.5)
    assert np.mean(by_dots == labels) > 0.97
    grey = sample.items // 255 * (100 + labels.repeat(1024))
    brighter = sample._replace(items=grey.astype(np.uint8))
    by_statistics = predict_by_statistics(brighter, brighter, size=32)
    assert np.mean(by_statistics == labels) > 0.97


def test_means_of_blocks_show_what_no_sum_of_pixels_does():
    """The class is whether two blocks are alike: each pixel alone says nothing."""
    rng = np.random.default_rng(5)

    def pictures(num_rows: int) -> Sample:
        bright = rng.integers(0, 2, (num_rows, 2))
        documents = rng.integers(0, 100, (num_rows, 8, 8))
        documents[:, 0:4, 4:8] += 100 * bright[:, 0, None, None]
        documents[:, 4:8, 0:4] += 100 * bright[:, 1, None, None]
        return sample_of(documents.reshape(num_rows, -1), bright[:, 0] ^ bright[:, 1])

    train, test = pictures(400), pictures(200)
    by_pixels = predict_by_pixels(train, test, size=8, strength=0.01)
    by_means = predict_by_means(train, test, size=8, block=4)
    assert np.mean(by_pixels == test.labels) < 0.65
    assert np.mean(by_means == test.labels) > 0.97
