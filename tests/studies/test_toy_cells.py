"""Cells of the tables trained inside a study."""

import pytest

from macformer.studies import toy_cells
from macformer.studies.toy_training import Outcome


@pytest.mark.parametrize(("test_batches", "rows"), [(3, 12), (None, 20)])
def test_a_cell_is_tested_on_as_many_batches_as_its_recipe_says(
    compose_study, monkeypatch, test_batches, rows
):
    tested = []

    def train(model, batches, test, **options):
        tested.extend(test)
        return Outcome(0.5, 0.1, 1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(toy_cells, "train", train)
    counts = {"train": 8, "validation": 4, "test": 20}
    options = {"task": "mqar_small", "task.num_examples": counts, "batch_size": 4}
    cfg = compose_study("study=range")
    toy_cells.train_cell({**options, "test_batches": test_batches}, cfg, num_steps=1)
    assert sum(len(batch["labels"]) for batch in tested) == rows
