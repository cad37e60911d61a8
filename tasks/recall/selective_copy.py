"""Selective copying (Gu & Dao 2023, Mamba, arXiv:2312.00752): repeat the tokens that are not noise.

Noise 1, question 2, values from 3; two tokens to copy:

    1 5 1 1 3 1 2 2   ->   5 at the first 2, 3 at the second
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from tasks.errors import DataError, check_wholes
from tasks.floors import ExactFloor
from tasks.recall.mqar import draw_distinct
from tasks.store.write import Chunk

_NOISE, _QUESTION, _FIRST_VALUE = 1, 2, 3


class SelectiveCopy(NamedTuple):
    """The law of an example: values anywhere in noise, then a question for each, in their order.

    Attributes:
        max_len: Tokens of an example, the questions included.
        num_marked: Tokens to copy; values may come twice.
        num_values: Values to draw from.
    """

    max_len: int
    num_marked: int
    num_values: int

    def check(self) -> None:
        """Refuse a law that has no examples.

        Raises:
            DataError: With the option and what is allowed.
        """
        check_wholes(max_len=self.max_len, num_marked=self.num_marked)
        check_wholes(num_values=self.num_values, least=2)
        if not 1 <= self.num_marked <= self.max_len // 2:
            raise DataError(
                f"task.num_marked is {self.num_marked}; it must be from 1 to half of "
                f"task.max_len={self.max_len}"
            )

    @property
    def num_classes(self) -> int:
        return self.num_values

    @property
    def num_questions(self) -> int:
        return self.num_marked

    @property
    def largest_id(self) -> int:
        return _FIRST_VALUE + self.num_values - 1

    @property
    def num_examples(self) -> int:
        """Count the examples that there are."""
        places = math.comb(self.max_len - self.num_marked, self.num_marked)
        return places * self.num_values**self.num_marked

    def floors(self) -> dict[str, ExactFloor]:
        """Say what can be had without telling the order of the tokens to copy."""
        likeliest = expected_largest_count(self.num_marked, self.num_values) / self.num_marked
        return {
            "chance": ExactFloor("any value, without reading the sequence", 1 / self.num_values),
            "most_frequent": ExactFloor(
                "the value that is most often among those to copy, whatever their order", likeliest
            ),
        }

    def draw(self, rng: Generator, num_examples: int) -> Chunk:
        """Draw examples: the class of an answer is the value's number."""
        content_len = self.max_len - self.num_marked
        ids = np.full((num_examples, self.max_len), _NOISE)
        ids[:, content_len:] = _QUESTION
        marked = np.sort(draw_distinct(rng, num_examples, np.ones(content_len), self.num_marked))
        values = rng.integers(self.num_values, size=marked.shape)
        np.put_along_axis(ids, marked, _FIRST_VALUE + values, axis=1)
        places = np.broadcast_to(np.arange(content_len, self.max_len), marked.shape)
        lengths = np.full(num_examples, self.max_len)
        return Chunk(ids.ravel(), lengths, values, places=places)


def expected_largest_count(num_draws: int, num_values: int) -> float:
    r"""Return how often the most frequent of equally likely values is drawn.

    .. math:: \mathrm{E} \max_v N_v = \sum_{m=0}^{n-1} \left(1 - \frac{n!}{V^n} [x^n]
        \Big(\sum_{j \le m} \frac{x^j}{j!}\Big)^{V}\right)
    """
    # Scaled to the Poisson law of one count, whose coefficients neither vanish nor overflow.
    rate = num_draws / num_values
    counts = np.arange(num_draws + 1)
    log_factorial = np.array([math.lgamma(count + 1) for count in counts])
    poisson = np.exp(counts * math.log(rate) - rate - log_factorial)
    total = math.exp(num_draws * math.log(num_draws) - num_draws - log_factorial[-1])
    expected = 0.0
    for largest in range(num_draws):
        at_most = np.where(counts <= largest, poisson, 0.0)
        product = np.zeros(num_draws + 1)
        product[0] = 1.0
        for _ in range(num_values):
            product = np.convolve(product, at_most)[: num_draws + 1]
        expected += 1 - product[-1] / total
    return float(expected)
