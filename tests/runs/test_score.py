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


def test_a_metric_that_was_added_before_a_resume_has_no_value_of_earlier_weights(monkeypatch):
    """The best weights may be older than the metric; training is over by the time this shows."""
    best = SimpleNamespace(step=1, metrics={"val/accuracy": 0.4})
    last = {"val/accuracy": 0.3, "val/f1": 0.2}
    tests = {"test/accuracy": 0.5, "test/f1": 0.6}
    monkeypatch.setattr(score, "_validate_last", lambda *args, **options: last)
    for name in ("_test", "_test_best"):
        monkeypatch.setattr(score, name, lambda *args: (tests, {}))
    monkeypatch.setattr(score, "_join", lambda best, last: {})
    built: Any = object.__new__(Run)
    built.trainer, built.callback = SimpleNamespace(global_step=2), lambda kind: best
    built.module, built.data = SimpleNamespace(), SimpleNamespace(hidden_share=None)
    results, _ = score.score_run(built, eval_interval=1)
    assert results["scores"]["best"] == {"val": {"f1": None}, "test": {"f1": 0.6}}
    assert results["scores"]["last"]["val"] == {"f1": 0.2}
