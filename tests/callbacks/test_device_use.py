"""Device time and energy are counted from set-up to end, over training, testing and resumption."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from macformer.callbacks import DeviceUse, device_use

# Lightning's advice on a machine that has Slurm's command
pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available")


def set_up(use: DeviceUse) -> tuple[pl.Trainer, pl.LightningModule, str]:
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    arguments = (pl.Trainer(accelerator="cpu", **options), pl.LightningModule(), "fit")
    use.setup(*arguments)
    return arguments


@pytest.fixture
def clock(monkeypatch):
    """Seconds and joules that a test moves on by hand; the device draws 5 W."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(device_use.time, "perf_counter", lambda: now.seconds)
    monkeypatch.setattr(device_use, "energy_counter", lambda _: lambda: 5.0 * now.seconds)
    return now


def spend(use: DeviceUse, clock, seconds: float) -> None:
    arguments = set_up(use)
    clock.seconds += seconds
    use.teardown(*arguments)


def test_training_and_testing_add_up_without_the_time_between(clock):
    use = DeviceUse()
    spend(use, clock, 7)
    clock.seconds += 50
    spend(use, clock, 3)
    assert (use.seconds, use.joules) == (10, 50)


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
    monkeypatch.setattr(device_use, "energy_counter", lambda _: lambda: None)
    use = DeviceUse()
    use.teardown(*set_up(use))
    assert use.joules is None and use.seconds >= 0


def test_a_cpu_has_no_counter():
    assert device_use.energy_counter(torch.device("cpu"))() is None


def test_the_counter_is_read_in_joules(monkeypatch):
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-ab-12": 7}[uuid],
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: {7: 4500}[handle],  # millijoules
    )
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    properties = SimpleNamespace(uuid="ab-12")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert device_use.energy_counter(torch.device("cuda"))() == 4.5
