"""The predictors of floors; those of scikit-learn are imported when the first one is fitted."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_ROWS_AT_ONCE = 2048

Labels = Int[np.ndarray, "rows"]


def look_up(keys: Int[np.ndarray, "train"], labels: Int[np.ndarray, "train"], asked: Labels):
    """Answer with the most frequent training label of a key, of all keys if it is a new one."""
    num_keys = int(max(keys.max(), asked.max())) + 1
    counts = np.zeros((num_keys, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (keys, labels), 1)
    answers = counts.argmax(axis=1)
    answers[counts.sum(axis=1) == 0] = counts.sum(axis=0).argmax()
    return answers[asked]


def threshold(values: Float[np.ndarray, "train"], labels: Int[np.ndarray, "train"], asked: Any):
    """Answer 1 above the value that separates training labels 0 and 1 best, or below it."""
    order = np.argsort(values, kind="stable")
    ones = np.concatenate([[0], np.cumsum(labels[order] == 1)])
    # Right answers if all values from place k on are taken for 1.
    right = ones[-1] - ones + np.arange(len(ones)) - ones
    is_cut = np.concatenate([[True], np.diff(values[order]) > 0, [True]])
    best = np.where(is_cut, right, -1).argmax()
    worst = np.where(is_cut, right, len(labels) + 1).argmin()
    upwards = right[best] >= len(labels) - right[worst]
    place = best if upwards else worst
    bounds = np.concatenate([[-np.inf], values[order], [np.inf]])
    bound = (bounds[place] + bounds[place + 1]) / 2
    return ((asked > bound) == upwards).astype(np.int64)


def linear(
    train: "np.ndarray | csr_array",
    labels: Int[np.ndarray, "train"],
    asked: "np.ndarray | csr_array",
    *,
    strength: float,
) -> Labels:
    """Answer by a logistic regression, fitted by at most 100 iterations of L-BFGS.

    Args:
        strength: Inverse of the weight of the L2 penalty.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, labels)
    return _in_parts(model, asked)


def boosted(
    train: Float[np.ndarray, "train n"],
    labels: Int[np.ndarray, "train"],
    asked: Any,
    *,
    num_rounds: int = 100,
    learning_rate: float = 0.05,
    max_leaves: int = 15,
) -> Labels:
    """Answer by boosted trees, which see what is not linear, such as a distance in a range.

    Args:
        num_rounds: Trees of each class.
        max_leaves: Of a tree.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=num_rounds,
        learning_rate=learning_rate,
        max_leaf_nodes=max_leaves,
        early_stopping=False,  # type: ignore[arg-type]
        random_state=0,
    )
    return _in_parts(model.fit(train, labels), asked)


def standardised(
    train: Float[np.ndarray, "train n"], asked: Float[np.ndarray, "rows n"]
) -> tuple[Float[np.ndarray, "train n"], Float[np.ndarray, "rows n"]]:
    """Give each column the training mean 0 and, unless it is constant, variance 1."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1
    return (train - mean) / deviation, (asked - mean) / deviation


def _in_parts(model: Any, asked: Any) -> Labels:
    starts = range(0, asked.shape[0], _ROWS_AT_ONCE)
    return np.concatenate([model.predict(asked[i : i + _ROWS_AT_ONCE]) for i in starts])
