"""Device time and energy are counted from set-up to end, over training, testing and resumption."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl

from macformer.callbacks import DeviceUse, device_use, neighbours
from macformer.callbacks.energy import NO_COUNTER, EnergyCounter

# Lightning's advice on a machine that has Slurm's command
pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available")


def set_up(use: DeviceUse, stage: str = "fit") -> tuple[pl.Trainer, pl.LightningModule, str]:
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    arguments = (pl.Trainer(accelerator="cpu", **options), pl.LightningModule(), stage)
    use.setup(*arguments)
    return arguments


@pytest.fixture
def clock(monkeypatch):
    """Seconds and joules that a test moves on by hand; the device draws 5 W."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(device_use, "perf_counter", lambda: now.seconds)
    monkeypatch.setattr(
        device_use, "energy_counter", lambda _: EnergyCounter("nvml", lambda: 5.0 * now.seconds)
    )
    return now


def spend(use: DeviceUse, clock, seconds: float, stage: str = "fit") -> None:
    arguments = set_up(use, stage)
    clock.seconds += seconds
    use.teardown(*arguments)


def test_training_and_testing_add_up_without_the_time_between(clock):
    use = DeviceUse()
    spend(use, clock, 7)
    clock.seconds += 50
    spend(use, clock, 3)
    assert (use.seconds, use.joules) == (10, 50)


def test_testing_counts_once_whether_the_best_weights_are_the_last_or_not(clock):
    use = DeviceUse()
    spend(use, clock, 7)
    spend(use, clock, 3, "test")
    spend(use, clock, 4, "test")
    assert (use.seconds, use.joules) == (11, 55)


@pytest.mark.parametrize(
    ("ran", "waited", "others", "shared"),
    [
        (10.0, 0.05, 9.0, False),
        (10.0, 3.0, 9.0, True),
        (10.0, 3.0, 0.1, False),  # more threads than cores: they wait for each other
    ],
)
def test_a_run_that_waited_for_cores_that_others_used_says_so(
    clock, monkeypatch, ran, waited, others, shared
):
    times = iter([(1.0, 1.0, 1.0), (1.0 + ran, 1.0 + waited, 1.0 + others)])
    monkeypatch.setattr(device_use, "core_times", lambda: next(times))
    use = DeviceUse()
    spend(use, clock, 10)
    assert (use.others is not None) == shared
    if shared:
        assert "23 % of the time" in str(use.others)


@pytest.mark.parametrize("silent", [0, 1])
def test_a_reading_that_the_system_does_not_give_says_nothing_of_others(clock, monkeypatch, silent):
    times = [(100.0, 60.0, 5000.0), (110.0, 60.0, 5010.0)]
    times[silent] = None
    found = iter(times)
    monkeypatch.setattr(device_use, "core_times", lambda: next(found))
    use = DeviceUse()
    spend(use, clock, 10)
    assert use.others is None and use.seconds == 10


def test_a_thread_that_has_ended_has_not_waited(tmp_path):
    schedstat = tmp_path / "schedstat"
    assert neighbours._waited(schedstat) == 0
    schedstat.write_text("1 23 4\n")
    assert neighbours._waited(schedstat) == 23


def test_other_processes_on_the_gpu_are_noticed(monkeypatch):
    monkeypatch.setattr(device_use, "stranger_counter", lambda _: lambda: 2)
    use = DeviceUse()
    arguments = set_up(use)
    use.on_validation_end(*arguments[:2])
    use.teardown(*arguments)
    assert "2 other processes" in str(use.others)
    resumed = DeviceUse()
    resumed.load_state_dict(use.state_dict())
    assert resumed.others == use.others


def test_this_machine_tells_its_core_times():
    before = neighbours.core_times()
    sum(range(10**6))
    after = neighbours.core_times()
    if before is not None and after is not None:  # Linux
        assert after[0] >= before[0] and after[1] >= before[1] >= 0


def test_a_resumed_run_adds_to_its_checkpoint(clock):
    killed = DeviceUse()
    set_up(killed)
    clock.seconds += 11
    state = killed.state_dict()
    clock.seconds += 13  # lost with the process
    resumed = DeviceUse()
    arguments = set_up(resumed)
    clock.seconds += 1
    resumed.load_state_dict(state)
    clock.seconds += 2
    resumed.teardown(*arguments)
    assert (resumed.seconds, resumed.joules) == (14, 70)


def test_energy_is_unknown_without_a_counter(monkeypatch):
    monkeypatch.setattr(device_use, "energy_counter", lambda _: NO_COUNTER)
    use = DeviceUse()
    use.teardown(*set_up(use))
    assert use.joules is None and use.seconds >= 0


def test_counters_are_read_often_enough_that_none_turns_over_unseen(clock, monkeypatch):
    """One that starts again at 100 J, of a device of 5 W, is read before it does so twice."""
    read = SimpleNamespace(last=clock.seconds, gaps=[])

    def joules() -> float:
        read.gaps.append(clock.seconds - read.last)
        read.last = clock.seconds
        return 5.0 * clock.seconds

    counter = EnergyCounter("rapl", joules)
    monkeypatch.setattr(device_use, "energy_counter", lambda _: counter)
    use = DeviceUse()
    arguments = set_up(use)
    for hook in (use.on_train_batch_end, use.on_validation_batch_end, use.on_test_batch_end):
        for _ in range(30):
            clock.seconds += 1
            hook(*arguments)
    use.teardown(*arguments)
    assert (use.seconds, use.joules, use.energy_source) == (90, 450, "rapl")
    assert max(read.gaps) < 20
    assert len(read.gaps) < 12  # reading takes time


def test_ranks_on_the_cores_of_one_machine_have_no_energy_of_their_own(clock, monkeypatch):
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    use = DeviceUse()
    spend(use, clock, 7)
    assert use.energy_source is None and use.joules is None and use.seconds == 7
