"""What only makes a run faster leaves its result alone, as its identity says.

Steps per call and captured steps have tests of their own; the rest of the list is here.
"""

import json

import pytest
import torch
from torch.testing import assert_close

from macformer.runs import cell
from tasks.feeding import data_module

OPTIONS = ("attention=rmfa_exp", "ppsbn=with", "attention.num_features=32")


def result_of(make_run, *switches: str, folder: str):
    """Return the configuration, the last weights and the metrics of a tiny run."""
    cfg, run_dir = make_run(*OPTIONS, *switches, folder=folder)
    assert cell.run(run_dir)
    state = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return cfg, state, json.loads((run_dir / "metrics.json").read_text())


@pytest.mark.parametrize("bucketed", [False, True])
def test_data_on_the_device_give_the_same_bits(make_run, bucketed):
    order = ("task.trim_batches=true", "task.bucket_by_length=true") if bucketed else ()
    fed, expected, results = result_of(make_run, "task.device_resident=false", *order, folder="fed")
    resident, weights, same = result_of(
        make_run, "task.device_resident=true", *order, folder="resident"
    )
    assert (fed.data.device_resident, resident.data.device_resident) == (False, True)
    assert fed.identity == resident.identity
    assert same["accuracy"] == results["accuracy"]
    assert same["train"]["loss"] == results["train"]["loss"]
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


@pytest.mark.slow
def test_a_run_of_full_rows_ends_with_the_bits_of_one_with_masks(make_run, monkeypatch):
    """Training, validation, test, rates and costs; expressions are all longer than the cut."""
    has_padding, found = data_module.has_padding, []

    def ask(rows, indices, **widths):
        found.append(has_padding(rows, indices, **widths))
        return found[-1]

    monkeypatch.setattr(data_module, "has_padding", ask)
    _, weights, results = result_of(make_run, "max_seq_len=4", folder="bare")
    assert found == [False] * 3
    monkeypatch.setattr(data_module, "has_padding", lambda rows, indices, **widths: True)
    _, expected, masked = result_of(make_run, "max_seq_len=4", folder="masked")
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
    for name in ("accuracy", "num_examples", "majority_rate"):
        assert results[name] == masked[name]
    for phase in ("train", "inference"):
        for count in ("examples", "tokens", "positions"):
            assert results[phase][count] == masked[phase][count] > 0
    assert results["cost"]["state_size"] == masked["cost"]["state_size"]


def test_a_fused_optimiser_takes_the_same_steps_up_to_rounding(make_run):
    plain, expected, results = result_of(make_run, "step.fused=false", folder="plain")
    fused, weights, same = result_of(make_run, "step.fused=true", folder="fused")
    assert (plain.optimizer.fused, fused.optimizer.fused) == (False, True)
    assert plain.identity == fused.identity
    # Adam divides gradients by their own size, so that the rounding of one near zero moves its
    # weight by a part of a step, of which eight are 8e-3 at most
    assert_close(weights, expected, rtol=1e-4, atol=1e-5)
    assert same["train"]["loss"] == pytest.approx(results["train"]["loss"], rel=1e-5)
