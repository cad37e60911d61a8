"""What is measured around training."""

import mmap
from types import SimpleNamespace
from unittest.mock import create_autospec

import jaxtyping
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn, TrainerState

from macformer.callbacks import (
    MemoryMeter,
    PeakMemory,
    Progress,
    RandomStates,
    Stopwatch,
    Throughput,
    throughput,
)
from macformer.callbacks.throughput import Interval, summarise
from macformer.measuring import count_batch

MIB = 2**20
BATCH = {
    "inputs": torch.ones(3, 2, dtype=torch.int64),
    "labels": torch.zeros(3),
    "key_padding_mask": torch.tensor([[False, True], [False, False], [True, True]]),
}


def test_stopwatch_counts_only_while_it_runs(monkeypatch):
    now = iter([10.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr(throughput, "now", lambda device: next(now))
    watch = Stopwatch(torch.device("cpu"))
    watch.count(count_batch(BATCH))  # before the start
    watch.start()
    watch.count(count_batch(BATCH))
    watch.stop()
    watch.count(count_batch(BATCH))  # during a validation
    watch.start()
    watch.count(count_batch(BATCH))
    watch.stop()
    found = summarise(watch.intervals, num_ranks=2)
    # twice 2 x 3 examples, 2 x 3 tokens, 2 x 6 positions, in 2 s and in 1 s
    assert found["seconds"] == 3 and found["num_intervals"] == 2
    assert [found[name] for name in throughput.COUNTED] == [12, 12, 24]
    assert found["examples_per_second"] == pytest.approx(4.5)
    assert found["examples_per_second_q25"] == pytest.approx(3.75)
    assert found["positions_per_second_q75"] == pytest.approx(10.5)


@pytest.mark.parametrize(
    "inputs",
    [torch.ones(3, 2, 5, dtype=torch.int64), torch.ones(3, 10, 4)],
    ids=["pairs", "series"],
)
def test_without_a_mask_all_positions_are_tokens(inputs):
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    watch.count(count_batch({"inputs": inputs, "labels": torch.zeros(3)}))
    watch.stop()
    found = summarise(watch.intervals, num_ranks=1)
    assert [found[name] for name in throughput.COUNTED] == [3, 30, 30]


def test_nothing_timed_gives_no_rate(monkeypatch):
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    watch.stop()  # after the warm-up there was no batch left
    found = summarise(watch.intervals, num_ranks=1)
    assert {value for name, value in found.items() if "per_second" in name} == {None}
    assert found["seconds"] == 0


def test_a_burst_in_a_tenth_of_the_run_does_not_move_the_rate():
    rng = np.random.default_rng(0)
    quiet = [
        Interval(batches=10, examples=320, tokens=9600, positions=12800, seconds=s)
        for s in rng.normal(1.0, 0.02, 100)
    ]
    disturbed = [
        Interval(10, i.examples, i.tokens, i.positions, i.seconds * (6 if 40 <= n < 50 else 1))
        for n, i in enumerate(quiet)
    ]
    rates = [summarise(i, num_ranks=1)["examples_per_second"] for i in (quiet, disturbed)]
    assert rates[1] == pytest.approx(rates[0], rel=0.05)
    means = [100 * 320 / sum(i.seconds for i in some) for some in (quiet, disturbed)]
    assert means[1] < 0.7 * means[0]  # what the mean would have reported


def test_short_intervals_do_not_enter_the_median():
    intervals = [Interval(10, 100, 100, 100, 1.0)] * 3 + [Interval(1, 10, 10, 10, 1.0)] * 3
    found = summarise(intervals, num_ranks=1)
    assert found["examples_per_second"] == 100 and found["examples"] == 330


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(throughput, "now", lambda device: now.seconds)
    return now


def train(callback: Throughput, clock, *, steps: range, seconds: float, max_steps: int) -> None:
    """Take steps of one second each, as Lightning would."""
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=max_steps, logger=False, enable_checkpointing=False
    )
    module = pl.LightningModule()
    callback.on_train_start(trainer, module)
    for step in steps:
        callback.on_train_batch_start(trainer, module, None, 0)
        clock.seconds += seconds
        trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = step
        callback.on_train_batch_end(trainer, module, {"counts": [count_batch(BATCH)]}, None, 0)
    callback.on_train_end(trainer, module)


@pytest.mark.filterwarnings("ignore:The `srun` command is available")
def test_a_resumed_run_adds_to_what_was_measured_before(clock):
    killed = Throughput(warmup_batches=2, interval=2)
    train(killed, clock, steps=range(1, 21), seconds=1.0, max_steps=40)
    assert killed.train["examples"] == 3 * 18 and killed.train["seconds"] == 18
    resumed = Throughput(warmup_batches=2, interval=2)
    resumed.load_state_dict(killed.state_dict())
    clock.seconds += 1000  # nobody was there
    train(resumed, clock, steps=range(21, 25), seconds=50.0, max_steps=40)
    assert resumed.train["examples"] == 3 * (18 + 2)
    assert resumed.train["seconds"] == 18 + 100
    assert resumed.train["examples_per_second"] == 3.0  # the median of nine quick and one slow


@pytest.mark.filterwarnings("ignore:The `srun` command is available")
def test_one_step_is_a_blank_and_not_a_zero(clock):
    callback = Throughput(warmup_batches=10, interval=10)
    train(callback, clock, steps=range(1, 2), seconds=1.0, max_steps=1)
    assert callback.train["examples_per_second"] is None


@pytest.mark.parametrize(
    ("metrics", "loss", "expected"),
    [
        ({}, float("nan"), "val 14.1 %"),  # before the first point of the curve
        ({}, 2.0, "loss 2.000  val 14.1 %"),  # of a checkpoint
        ({"train/loss": 2.0}, 2.0, "loss 2.000  val 14.1 %"),
        ({"train/loss": float("nan")}, float("nan"), "loss nan  val 14.1 %"),
    ],
)
def test_a_validation_without_a_terminal_is_a_line_that_names_what_there_is(
    capsys, metrics, loss, expected
):
    trainer, module = (
        create_autospec(pl.Trainer, instance=True),
        create_autospec(pl.LightningModule, instance=True),
    )
    trainer.configure_mock(global_step=2, max_steps=4, is_global_zero=True)
    trainer.state = TrainerState(fn=TrainerFn.FITTING)
    trainer.callback_metrics = {"val/accuracy": 0.141, **metrics}
    module.train_loss = loss
    progress = Progress(refresh_interval=10)
    progress.on_train_start(trainer, module)
    progress.on_validation_end(trainer, module)
    assert capsys.readouterr().err == f"step 2/4  {expected}\n"


def test_cpu_peak_is_that_of_the_stretch():
    meter = MemoryMeter(torch.device("cpu"))
    big = torch.ones(64 * MIB // 4)  # before the reset
    meter.reset()
    del big
    small = torch.ones(16 * MIB // 4)
    peak_mib = meter.read_gib() * 1024
    del small
    assert peak_mib < 60  # the earlier 64 MiB do not count twice
    meter.reset()
    large = torch.ones(96 * MIB // 4)
    assert meter.read_gib() * 1024 == pytest.approx(96, abs=12)
    del large


def test_the_peak_on_a_gpu_stands_above_the_data_and_above_what_training_left(monkeypatch):
    """10 GiB of data, a model of 1, a step of 5 more; a test of 3 beside what stays of training."""
    held, highest = 10.0, 0.0

    def allocate(gib):
        nonlocal held, highest
        held += gib
        highest = max(highest, held)

    def reset(device):
        nonlocal highest
        highest = held

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: highest * 2**30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # stand-ins for Lightning
    device = torch.device("cuda", 0)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device))
    module = SimpleNamespace(device=device)
    memory = PeakMemory()
    memory.setup(trainer, module, "fit")
    allocate(1)
    memory.on_train_start(trainer, module)
    allocate(5)
    allocate(-3)  # the optimiser's state and the gradients stay
    memory.on_train_end(trainer, module)
    memory.on_test_start(trainer, module)
    allocate(3)
    allocate(-3)
    memory.on_test_end(trainer, module)
    assert (memory.resident_gib, memory.train_gib, memory.inference_gib) == (10, 6, 3)


def test_pages_of_the_data_are_not_memory_of_the_model(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.ones(64 * MIB, dtype=np.uint8))
    meter = MemoryMeter(torch.device("cpu"))
    meter.reset()
    rows = np.load(path, mmap_mode="r")
    assert rows.sum() == 64 * MIB and isinstance(rows.base, mmap.mmap)
    own = torch.ones(32 * MIB // 4)
    assert meter.read_gib() * 1024 == pytest.approx(32, abs=8)
    del own


def test_the_level_of_a_resumed_run_is_taken_before_its_state_is_loaded():
    meter = MemoryMeter(torch.device("cpu"))
    meter.mark_level()
    state = torch.ones(48 * MIB // 4)
    meter.reset_peak()
    assert meter.read_gib() * 1024 == pytest.approx(48, abs=8)
    del state


def test_random_states_are_those_of_the_own_device(monkeypatch):
    """A checkpoint of a machine with more GPUs is loaded by one with fewer."""
    asked = []

    def get_state(device):
        asked.append(device)
        return torch.zeros(4, dtype=torch.uint8)

    monkeypatch.setattr(torch.cuda, "get_rng_state", get_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: asked.append(device))
    device = torch.device("cuda", 1)
    states = RandomStates()
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device), global_rank=0)
    states._device = trainer.strategy.root_device
    saved = states.state_dict()
    loaded = RandomStates()
    loaded._device = torch.device("cuda", 0)
    loaded.load_state_dict(saved)
    torch.manual_seed(5)
    loaded.on_train_batch_start(trainer, None, None, 0)
    assert asked == [device, torch.device("cuda", 0)] and len(saved["ranks"]) == 1


def test_ranks_draw_different_dropout():
    def first_draw(rank: int) -> float:
        torch.manual_seed(3)
        torch.rand(7)  # the model
        trainer = create_autospec(pl.Trainer, instance=True, global_rank=rank)
        RandomStates().on_train_start(trainer, pl.LightningModule())
        return torch.rand(1).item()

    draws = [first_draw(rank) for rank in range(3)]
    assert len(set(draws)) == 3
    torch.manual_seed(3)
    assert draws[0] == torch.rand(8)[-1].item()  # one process is as it was


def test_each_rank_goes_on_from_its_own_state():
    torch.manual_seed(1)
    first, second = RandomStates().state_dict()["ranks"][0], None
    torch.manual_seed(2)
    second = RandomStates().state_dict()["ranks"][0]
    expected = torch.rand(1)
    states = RandomStates()
    states.load_state_dict({"ranks": [first, second]})
    states.on_train_batch_start(SimpleNamespace(global_rank=1), None, None, 0)
    assert torch.equal(torch.rand(1), expected)
