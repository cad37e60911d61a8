"""Two processes on half the batch each are one process on the whole batch."""

import csv
import json

import pytest

from macformer.runs import cell
from macformer.runs.process import run_in_process

# batch statistics couple the ranks; dropout would differ between them
OPTIONS = (
    "attention=rmfa_exp",
    "attention.num_features=16",
    "ppsbn=with_batch",
    "model.encoder.dropout=0.0",
)
TWO = ("trainer.devices=2", "trainer.strategy=ddp", "batch_size=4")


def read_run(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return json.loads((run_dir / "metrics.json").read_text()), rows


@pytest.mark.slow
def test_two_processes_reach_the_loss_of_one_with_the_doubled_batch(make_run):
    _, single = make_run(*OPTIONS, "batch_size=8", folder="single")
    assert cell.run(single)
    _, double = make_run(*OPTIONS, *TWO, folder="double")
    assert run_in_process(double, overwrite=False)

    one, one_curve = read_run(single)
    two, two_curve = read_run(double)
    for column in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        values = [[float(r[column]) for r in rows if r[column]] for rows in (one_curve, two_curve)]
        assert len(values[0]) == (4 if column.startswith("train") else 2)
        assert values[1] == pytest.approx(values[0], rel=1e-5), column
    assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-5)
    assert two["num_examples"]["test"] == 27  # odd, so the ranks have unequal shares
    for weights in ("best", "last"):
        assert two["accuracy"][weights] == pytest.approx(one["accuracy"][weights], abs=1e-6)
        correct = 27 * two["accuracy"][weights]["test"]
        assert correct == pytest.approx(round(correct), abs=1e-4)
