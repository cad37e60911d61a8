"""Counters of energy, on files and on a library that stand for the kernel's and the driver's."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from macformer.callbacks.energy import energy_counter

CPU = torch.device("cpu")


@pytest.fixture
def powercap(tmp_path) -> Path:
    return tmp_path / "powercap"


def count(folder: Path, microjoules: int) -> None:
    (folder / "energy_uj").write_text(f"{microjoules}\n")


def add_domain(powercap: Path, number: str, name: str, *, limit: int = 1_000_000) -> Path:
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    count(folder, 700_000)
    return folder


def test_joules_of_two_packages_add_up_from_the_start_on(powercap):
    first, second = (add_domain(powercap, str(i), f"package-{i}") for i in range(2))
    counter = energy_counter(CPU, powercap=powercap)
    assert counter.source == "rapl" and counter.read() == 0
    count(first, 800_000)
    count(second, 950_000)
    assert counter.read() == pytest.approx(0.35)


def test_a_counter_that_turns_over_goes_on(powercap):
    """0.2 J up to the limit of 1 J and 0.3 J beyond; then the other half of a turn."""
    package = add_domain(powercap, "0", "package-0")
    counter = energy_counter(CPU, powercap=powercap)
    count(package, 900_000)
    counter.read()
    count(package, 200_000)
    assert counter.read() == pytest.approx(0.5)
    count(package, 700_000)
    assert counter.read() == pytest.approx(1.0)


def test_what_a_package_holds_already_and_the_whole_platform_do_not_count(powercap):
    add_domain(powercap, "0", "package-0")
    others = [("0:0", "core"), ("0:1", "dram"), ("1", "psys")]
    folders = [add_domain(powercap, number, name) for number, name in others]
    counter = energy_counter(CPU, powercap=powercap)
    for folder in folders:
        count(folder, 900_000)
    assert counter.read() == 0


@pytest.mark.parametrize("missing", ["energy_uj", "max_energy_range_uj", "name"])
def test_without_all_files_of_a_package_nothing_is_counted(powercap, missing):
    add_domain(powercap, "0", "package-0")
    (add_domain(powercap, "1", "package-1") / missing).unlink()
    counter = energy_counter(CPU, powercap=powercap)
    assert counter.source is None and counter.read() is None


def test_a_machine_without_counters_has_no_energy(powercap):
    counter = energy_counter(CPU, powercap=powercap)
    assert counter.source is None and counter.read() is None


def test_counters_that_only_root_may_read_are_left_alone(powercap, monkeypatch):
    package = add_domain(powercap, "0", "package-0")
    read_text = Path.read_text

    def refuse(path: Path, *args, **kwargs) -> str:
        if path == package / "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)  # a test may run as root, who reads everything
    assert energy_counter(CPU, powercap=powercap).source is None


def test_a_counter_that_goes_away_leaves_joules_unknown(powercap):
    package = add_domain(powercap, "0", "package-0")
    counter = energy_counter(CPU, powercap=powercap)
    (package / "energy_uj").unlink()
    assert counter.read() is None


@pytest.fixture
def millijoules(monkeypatch) -> dict[int, int]:
    """What a driver counts of the GPU whose handle is 7."""
    counts = {7: 4500}
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-ab-12": 7}[uuid],
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: counts[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="ab-12")
    )
    return counts


def test_the_counter_of_a_gpu_is_read_in_joules(millijoules):
    counter = energy_counter(torch.device("cuda"))
    assert counter.source == "nvml" and counter.read() == 4.5
    millijoules[7] = 6000
    assert counter.read() == 6


def test_a_gpu_whose_counter_fails_leaves_joules_unknown(millijoules):
    counter = energy_counter(torch.device("cuda"))
    millijoules.clear()
    assert counter.read() is None
    assert energy_counter(torch.device("cuda")).source is None
