"""Floors of series: what their statistics tell, whatever the order of their steps."""

import numpy as np
from jaxtyping import Float64, Int64

from tasks.floors.models import linear, standardised
from tasks.floors.sample import Sample


def predict_by_statistics(
    train: Sample, test: Sample, *, num_channels: int
) -> Int64[np.ndarray, "rows"]:
    """Classify by a linear model of what each channel has in all."""
    features = standardised(
        *(statistics(sample, num_channels=num_channels) for sample in (train, test))
    )
    return linear(features[0], train.labels, features[1], strength=1.0)


def statistics(sample: Sample, *, num_channels: int) -> Float64[np.ndarray, "n features"]:
    """Return mean, spread, extremes, median and mean step of each channel, and the length.

    A value that is missing is left out; a channel without any has zeros.
    """
    return np.stack(
        [_of_series(s.reshape(-1, num_channels)) for s in sample.texts(sample.documents)]
    )


def _of_series(values: np.ndarray) -> np.ndarray:
    columns = []
    for channel in values.astype(np.float64).T:
        known = channel[~np.isnan(channel)]
        if not len(known):
            columns.append(np.zeros(6))
            continue
        step = np.abs(np.diff(known)).mean() if len(known) > 1 else 0.0
        columns.append(
            np.array([known.mean(), known.std(), known.min(), known.max(), np.median(known), step])
        )
    return np.concatenate([*columns, [np.log(len(values))]])
