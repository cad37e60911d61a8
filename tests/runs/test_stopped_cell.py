"""What a cell that stops on the way says and leaves, and that it goes on as if it had not."""

import errno
import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Timer

from macformer.record import describe_run, read_metrics, write_metrics
from macformer.runs import cell, checkpoint, devices, train_and_test
from macformer.runs.devices import claim_devices
from macformer.runs.stop import Stopped, stop_signals_raise
from macformer.training import lightning_module
from macformer.training.lightning_module import ClassificationModule


def test_divergence_is_a_failure_with_a_reason(make_run, capsys):
    _, run_dir = make_run("learning_rate=1e30", "clip=null")
    assert not cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert metrics["status"] == "failed"
    assert "the training loss is nan" in metrics["reason"]
    assert len(capsys.readouterr().err.strip().splitlines()) <= 4
    assert "DivergedError" in (run_dir / "error.log").read_text()


@pytest.mark.parametrize("max_steps", [8, 10])  # with and without a validation at the end
def test_weights_that_the_last_step_has_spoilt_are_a_failure(make_run, monkeypatch, max_steps):
    """Its loss was finite; the answer to every row would be the first class."""
    steps = []

    def spoil_the_last(gradients, batch, optimizer, scheduler):
        steps.append(lightning_step(gradients, batch, optimizer, scheduler))
        if len(steps) == max_steps:
            optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))
        return steps[-1]

    lightning_step = lightning_module.optimisation_step
    monkeypatch.setattr(lightning_module, "optimisation_step", spoil_the_last)
    _, run_dir = make_run(f"max_steps={max_steps}")
    assert not cell.run(run_dir)
    reason = read_metrics(run_dir)["reason"]
    assert reason.startswith(f"the validation loss is nan at step {max_steps}; ")
    assert torch.load(run_dir / "checkpoints" / "best.ckpt")["global_step"] == 4


def test_weights_and_biases_hears_of_a_failure(make_run, monkeypatch):
    codes = []
    wandb = SimpleNamespace(run=object(), finish=lambda *, exit_code: codes.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    _, run_dir = make_run()
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationModule, "training_step", lambda *args: 1 / 0)
        assert not cell.run(run_dir)
    assert cell.run(run_dir)
    assert codes == [1, 0]


def test_want_of_memory_is_named(make_run, monkeypatch):
    _, run_dir = make_run()
    monkeypatch.setattr(ClassificationModule, "training_step", lambda *_: torch.empty(1 << 50))
    assert not cell.run(run_dir)
    assert read_metrics(run_dir)["reason"].startswith("out of memory: ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("attention=rmfa_exp", "attention.num_features=0"), "num_features is 0; at least 1"),
        (("attention=rmfa_inv", "attention.guard=1.5"), "bounded by 1.5; lower guard"),
        (("mixer.num_heads=3",), "qkv_dim 64 is not a multiple of num_heads 3"),
        (("task.source=moon",), "'moon'"),
    ],
)
def test_bad_option_is_one_line(make_run, overrides, message):
    _, run_dir = make_run(*overrides)
    assert not cell.run(run_dir)
    reason = read_metrics(run_dir)["reason"]
    assert message in reason and "\n" not in reason


@pytest.mark.parametrize(
    ("overrides", "key"),
    [(("~callbacks",), "best"), (("~callbacks.random_states",), "random_states")],
)
def test_callbacks_that_decide_are_asked_for_before_training(make_run, overrides, key):
    _, run_dir = make_run(*overrides)
    assert not cell.run(run_dir)
    assert f"callbacks.{key} is missing" in read_metrics(run_dir)["reason"]
    assert not (run_dir / "checkpoints").exists()


def test_a_signal_interrupts(make_run, monkeypatch):
    def step(self, dataloader_iter):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    _, run_dir = make_run()
    monkeypatch.setattr(ClassificationModule, "training_step", step)
    with pytest.raises(Stopped), stop_signals_raise(over=(signal.SIG_DFL,)):
        cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert (metrics["status"], metrics["reason"]) == ("interrupted", "stopped by SIGTERM")
    assert not (run_dir / "error.log").exists()


def test_a_signal_while_a_checkpoint_is_written_interrupts_and_leaves_the_one_before(
    make_run, monkeypatch, last_weights
):
    """torch calls the file's own write, and turns what that raises into a RuntimeError."""
    written = checkpoint.whole_file

    @contextmanager
    def signalled(path):
        with written(path) as file:
            write, number = file.write, count()

            def stop(data):
                if path.exists() and next(number) == 1:  # amid the second checkpoint
                    signal.raise_signal(signal.SIGTERM)
                return write(data)

            yield SimpleNamespace(write=stop, flush=file.flush)

    _, run_dir = make_run()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "whole_file", signalled)
        with pytest.raises(Stopped), stop_signals_raise(over=(signal.SIG_DFL,)):
            cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert (metrics["status"], metrics["reason"]) == ("interrupted", "stopped by SIGTERM")
    assert not (run_dir / "error.log").exists()
    assert last_weights(run_dir)


def test_a_disk_without_room_for_a_traceback_may_have_some_for_the_reason(make_run, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    _, run_dir = make_run()
    monkeypatch.setattr(cell, "pretrain", lambda cfg: 1 / 0)
    monkeypatch.setattr(cell.Path, "write_text", full)
    assert not cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert metrics["status"] == "failed" and "division by zero" in metrics["reason"]


def test_a_full_disk_hides_no_request_to_stop(make_run, monkeypatch):
    def stop(cfg):
        raise Stopped("SIGTERM", 143)

    def full(run_dir, status, reason):
        raise OSError(errno.ENOSPC, "No space left on device")

    _, run_dir = make_run()
    monkeypatch.setattr(cell, "pretrain", stop)
    monkeypatch.setattr(cell, "write_end", full)
    with pytest.raises(Stopped):
        cell.run(run_dir)


def test_a_time_limit_interrupts_and_the_same_command_goes_on(make_run, monkeypatch, last_weights):
    _, whole = make_run(folder="whole")
    assert cell.run(whole)
    _, run_dir = make_run("+trainer.max_time='00:00:00:05'", folder="limited")
    readings = iter(range(100))  # the clock is read once before training, then after each step
    with monkeypatch.context() as patch:
        patch.setattr(Timer, "time_elapsed", lambda *_: 10.0 * (next(readings) >= 3))
        with pytest.raises(Stopped, match=r"trainer\.max_time was up at step 3 of 8") as stop:
            cell.run(run_dir)
    assert stop.value.exit_code == 124
    assert read_metrics(run_dir)["status"] == "interrupted"
    assert "max_time" in read_metrics(run_dir)["reason"]
    make_run(folder="limited")
    assert cell.run(run_dir)
    assert read_metrics(run_dir)["accuracy"] == read_metrics(whole)["accuracy"]
    assert all(torch.equal(v, last_weights(whole)[k]) for k, v in last_weights(run_dir).items())


def test_an_overwritten_run_that_is_stopped_at_once_goes_on_from_nothing_older(
    make_run, monkeypatch
):
    cfg, run_dir = make_run("overwrite=true")
    record = {**describe_run(cfg), "status": "finished", "accuracy": {"best": {"test": 0.4}}}
    write_metrics(run_dir, record)
    older = [run_dir / "checkpoints" / "last.ckpt", run_dir / "predictions.npz"]
    for file in older:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"older")

    def stop(cfg):
        raise Stopped("SIGTERM", 143)

    monkeypatch.setattr(cell, "pretrain", stop)
    with pytest.raises(Stopped):
        cell.run(run_dir)
    assert read_metrics(run_dir)["status"] == "interrupted"
    assert not any(file.exists() for file in older)


@pytest.mark.parametrize(
    "attention", ["softmax", "rfa", pytest.param("rmfa_exp", marks=pytest.mark.slow)]
)
def test_resumed_run_ends_with_the_same_bits(make_run, power_cut, attention, last_weights):
    features = () if attention == "softmax" else ("attention.num_features=16",)
    options = (f"attention={attention}", *features, "ppsbn=with")
    _, whole = make_run(*options, folder="whole")
    assert cell.run(whole)

    _, parted = make_run(*options, folder="parted")
    with power_cut(before_step=6):  # two steps after the checkpoint
        assert not cell.run(parted)
    assert read_metrics(parted)["status"] == "failed"
    assert cell.run(parted)

    for name, value in last_weights(whole).items():
        assert torch.equal(value, last_weights(parted)[name]), name
    assert read_metrics(whole)["accuracy"] == read_metrics(parted)["accuracy"]
    assert read_metrics(parted)["reason"] is None


@pytest.mark.parametrize(
    "max_steps", [pytest.param(8, marks=pytest.mark.slow), 10]
)  # with and without a validation at the end
def test_a_run_stopped_in_its_test_is_tested_alone(make_run, monkeypatch, max_steps):
    _, run_dir = make_run(f"max_steps={max_steps}", "seed=3")
    assert cell.run(run_dir)
    whole = read_metrics(run_dir)

    make_run(f"max_steps={max_steps}", "seed=3", "overwrite=true")
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationModule, "test_step", lambda *args: 1 / 0)
        assert not cell.run(run_dir)
    make_run(f"max_steps={max_steps}", "seed=3")
    monkeypatch.setattr(ClassificationModule, "training_step", lambda *args: 1 / 0)
    assert cell.run(run_dir)
    parted = read_metrics(run_dir)
    assert parted["accuracy"] == whole["accuracy"]
    assert parted["train"]["loss"] == whole["train"]["loss"]
    assert set(parted["train"]) == set(whole["train"])
    assert None not in parted["train"].values() and parted["train"]["seconds"] > 0


def test_a_moved_and_damaged_run_ends_as_if_nothing_had_happened(
    make_run, power_cut, caplog, last_weights
):
    """Its folder is moved, metrics.json empty and last.ckpt cut off; best.ckpt is whole."""
    _, whole = make_run(folder="whole")
    assert cell.run(whole)
    _, before = make_run(folder="before")
    with power_cut(before_step=6):
        assert not cell.run(before)
    moved = before.rename(before.with_name("moved"))
    (moved / "metrics.json").write_text("")
    last = moved / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    assert cell.run(moved)
    assert f"{moved / 'metrics.json'} is damaged" in caplog.text
    assert f"{last} cannot be read" in caplog.text
    assert read_metrics(moved)["accuracy"] == read_metrics(whole)["accuracy"]
    assert all(torch.equal(v, last_weights(whole)[k]) for k, v in last_weights(moved).items())
    assert not before.exists()


@pytest.fixture
def own_machine(tmp_path, monkeypatch):
    """Hide the cells that others run on this machine."""
    (tmp_path / "claims").mkdir()
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path / "claims"))


@pytest.mark.parametrize("checkpoint_was_reached", [True, False])
def test_a_run_that_goes_on_knows_that_its_device_was_shared(
    make_run, power_cut, own_machine, checkpoint_was_reached
):
    _, run_dir = make_run()
    with claim_devices(["cpu"], count=1), power_cut(before_step=6 if checkpoint_was_reached else 2):
        assert not cell.run(run_dir)
    assert cell.run(run_dir)
    shared = read_metrics(run_dir)["sharing"] == "another cell used the device"
    assert shared == checkpoint_was_reached  # else no step of the shared time counts


def test_a_run_that_goes_on_on_another_device_has_the_speed_of_neither(
    make_run, power_cut, own_machine, monkeypatch
):
    _, run_dir = make_run()
    monkeypatch.setattr(train_and_test, "device_name", lambda device: "a GPU")
    with power_cut(before_step=6):
        assert not cell.run(run_dir)
    monkeypatch.setattr(train_and_test, "device_name", lambda device: "a CPU")
    assert cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert (metrics["device"], metrics["exclusive"]) == ("a CPU", False)
    assert metrics["sharing"] == "it began on a GPU"


def test_other_data_are_named_before_the_run_goes_on(make_run, power_cut):
    _, run_dir = make_run()
    with power_cut(before_step=6):
        assert not cell.run(run_dir)
    metrics = read_metrics(run_dir)
    (run_dir / "metrics.json").write_text(json.dumps({**metrics, "data_digest": "of others"}))
    assert not cell.run(run_dir)
    assert "the data are not those that this run began with" in read_metrics(run_dir)["reason"]
