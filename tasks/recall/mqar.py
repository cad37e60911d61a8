"""Multi-query associative recall (Arora et al. 2023, Zoology, arXiv:2312.04927).

Keys 1 to 5, values 6 to 9; two pairs, and each key once more where it is asked for its value:

    2 8 4 7 9 4 1 5 2 3   ->   7 at the second 4, 8 at the second 2
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator

from tasks.errors import DataError, check_whole, is_number
from tasks.floors import ExactFloor
from tasks.store.write import Chunk


class Mqar(NamedTuple):
    """The law of an example: pairs first, then each key once more, among random tokens.

    The places of queries are drawn without replacement, the one at distance g behind the pairs with
    a probability in proportion to g ** (distance_power - 1). Which pair is asked for where is drawn
    apart from that: in the authors' code (HazyResearch/zoology, data/multiquery_ar.py) an earlier
    pair tends to be asked for earlier, so that the place of a query says something of its answer.
    There queries stand at every other place, and the law runs over these; here at any.

    Attributes:
        max_len: Tokens of an example.
        num_pairs: Pairs, and so queries, of an example; no key and no value comes twice.
        num_keys: Keys to draw from; their token ids begin at 1.
        num_values: Values to draw from, with the token ids behind them.
        distance_power: 1 spreads queries evenly; towards 0 they crowd behind the pairs.
        random_filler: Whether tokens between queries are keys and values at random, as in the
            authors' code; otherwise they are one token of their own. Of few keys each would stand
            in the filler many times.
    """

    max_len: int
    num_pairs: int
    num_keys: int
    num_values: int
    distance_power: float
    random_filler: bool

    def check(self) -> None:
        """Refuse a law that has no examples.

        Raises:
            DataError: With the option and what is allowed.
        """
        for name in ("max_len", "num_pairs", "num_keys", "num_values"):
            check_whole(f"task.{name}", getattr(self, name))
        if not self.num_pairs <= min(self.num_keys, self.num_values):
            raise DataError(
                f"task.num_pairs is {self.num_pairs}; it must be from 1 to the lesser of "
                f"task.num_keys={self.num_keys} and task.num_values={self.num_values}"
            )
        if 3 * self.num_pairs > self.max_len:
            raise DataError(
                f"task.max_len is {self.max_len}; {self.num_pairs} pairs and a query for each need "
                f"{3 * self.num_pairs}"
            )
        if not is_number(self.distance_power) or self.distance_power <= 0:
            raise DataError(f"task.distance_power is {self.distance_power}; it must be positive")

    @property
    def num_classes(self) -> int:
        return self.num_values

    @property
    def num_questions(self) -> int:
        return self.num_pairs

    @property
    def largest_id(self) -> int:
        return self.num_keys + self.num_values + (not self.random_filler)

    @property
    def num_examples(self) -> int:
        """Count the examples that there are, the filler aside."""
        places = self.max_len - 2 * self.num_pairs
        return math.prod(
            math.perm(choices, self.num_pairs)
            for choices in (self.num_keys, self.num_values, places)
        )

    def floors(self) -> dict[str, ExactFloor]:
        """Say what can be had without looking a key up."""
        return {
            "chance": ExactFloor("any value, without reading the pairs", 1 / self.num_values),
            "values": ExactFloor(
                "any of the values in the pairs, without reading the keys", 1 / self.num_pairs
            ),
        }

    def draw(self, rng: Generator, num_examples: int) -> Chunk:
        """Draw examples: the class of an answer is the value's number."""
        context_len = 2 * self.num_pairs
        lowest = 1 if self.random_filler else self.largest_id
        ids = rng.integers(lowest, self.largest_id + 1, size=(num_examples, self.max_len))
        keys = 1 + draw_distinct(rng, num_examples, np.ones(self.num_keys), self.num_pairs)
        values = draw_distinct(rng, num_examples, np.ones(self.num_values), self.num_pairs)
        ids[:, 0:context_len:2] = keys
        ids[:, 1:context_len:2] = 1 + self.num_keys + values
        distance = np.arange(1, self.max_len - context_len + 1)
        weights = distance ** (self.distance_power - 1.0)
        places = context_len + draw_distinct(rng, num_examples, weights, self.num_pairs)
        np.put_along_axis(ids, places, keys, axis=1)
        order = places.argsort(axis=1)
        return Chunk(
            ids.ravel(),
            np.full(num_examples, self.max_len),
            np.take_along_axis(values, order, axis=1),
            places=np.take_along_axis(places, order, axis=1),
        )


def draw_distinct(
    rng: Generator, num_rows: int, weights: Float[np.ndarray, "items"], num_drawn: int
) -> Int[np.ndarray, "rows drawn"]:
    """Draw items one after another, by their weights among those left; forget in which order.

    The largest of log(u) / weight, u uniform, are such a sample (Efraimidis & Spirakis 2006).
    """
    keys = np.log1p(-rng.random((num_rows, len(weights)))) / weights
    # In what order a partition leaves them is up to the machine.
    drawn = np.sort(np.argpartition(-keys, num_drawn - 1, axis=1)[:, :num_drawn], axis=1)
    return rng.permuted(drawn, axis=1)
