"""What a run answered on its test split, put together from the shares of all ranks."""

from types import SimpleNamespace
from typing import Any

import torch

from macformer.runs import score
from macformer.runs.build import Run


def ranked(rows: list[int]) -> Any:
    """Return a run whose rank has tested some rows, with answers that tell their rows."""
    numbers = torch.tensor(rows)
    module = SimpleNamespace(test_answers=lambda: (numbers + 100, numbers + 200, numbers / 10))
    built: Any = object.__new__(Run)
    built.data, built.module = SimpleNamespace(test_rows=lambda: numbers), module
    return built


def test_the_answers_of_all_ranks_are_those_of_every_row_once(monkeypatch):
    """Of unequal shares, each in an order of its own."""
    shares = [[4, 0, 2], [3, 1]]

    def gather(parts, own):
        for rank, rows in enumerate(shares):
            labels, predictions, margins = ranked(rows).module.test_answers()
            parts[rank] = (torch.tensor(rows), labels, predictions, margins)
        assert all(torch.equal(a, b) for a, b in zip(own, parts[1], strict=True))

    stand_in = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_world_size=lambda: 2,
        all_gather_object=gather,
    )
    monkeypatch.setattr(score, "dist", stand_in)
    answers = score._answers(ranked(shares[1]))
    assert answers["row"].tolist() == [0, 1, 2, 3, 4]
    assert answers["label"].tolist() == [100, 101, 102, 103, 104]
    assert answers["prediction"].tolist() == [200, 201, 202, 203, 204]
    assert answers["margin"].round(3).tolist() == torch.arange(5).div(10).tolist()
