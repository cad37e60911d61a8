"""A cell has its device to itself, or knows that it has not."""

import os
from contextlib import ExitStack

import pytest
from omegaconf import OmegaConf

from macformer.runs import devices
from macformer.runs.devices import claim_devices


@pytest.fixture(autouse=True)
def own_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))


def test_one_cell_is_alone():
    with claim_devices(["cpu"], count=1) as claim:
        assert claim.is_alone
    with claim_devices(["cpu"], count=1) as claim:  # the one before has ended
        assert claim.is_alone


def test_of_two_cells_neither_is_alone_and_it_is_remembered():
    with claim_devices(["cpu"], count=1) as first:
        assert first.is_alone
        with claim_devices(["cpu"], count=1) as second:
            assert not second.is_alone
        assert not first.is_alone  # it was disturbed, although nobody is there any more


def test_cells_go_to_the_gpu_that_is_free():
    with ExitStack() as running:
        claims = [running.enter_context(claim_devices(["0", "1"], count=1)) for _ in range(2)]
        assert sorted(claim.devices[0] for claim in claims) == ["0", "1"]
        assert all(claim.is_alone for claim in claims)
        freed = claims[1].devices
        running.pop_all().close()
        running.enter_context(claim_devices(claims[0].devices, count=1))
        third = running.enter_context(claim_devices(["0", "1"], count=1))
        assert third.devices == freed and third.is_alone


def test_a_dead_cell_leaves_nothing_behind(tmp_path):
    with claim_devices(["cpu"], count=1) as claim:
        folder = claim.places[0].parent
    (folder / "dead.lock").touch()
    (folder / "dead.shared").touch()
    with claim_devices(["cpu"], count=1) as claim:
        assert claim.is_alone
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,1", ["0", "1"]),
        ("GPU-a", ["GPU-a"]),
        ("", []),
        (None, ["0", "1"]),
        ("0, 1", ["0", "1"]),
        ("-1", []),
        ("1,-1,0", ["1"]),
        ("NoDevFiles", []),  # as Slurm has it
    ],
)
def test_visible_gpus(tmp_path, monkeypatch, visible, expected):
    for name in ("0000:17:00.0", "0000:65:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.setattr(devices, "NVIDIA_GPUS", tmp_path / "gpus")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.visible_gpus() == expected


@pytest.mark.parametrize(
    ("accelerator", "cuda", "expected"),
    [("auto", "13.0", ["0", "1"]), ("cpu", "13.0", ["cpu"]), ("auto", None, ["cpu"])],
)
def test_the_cpu_is_one_device(monkeypatch, accelerator, cuda, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(devices.torch.version, "cuda", cuda)
    cfg = OmegaConf.create({"trainer": {"accelerator": accelerator, "devices": 1}})
    assert devices.device_names(cfg) == (expected, 1)


def test_hidden_gpus_leave_the_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(devices.torch.version, "cuda", "13.0")
    cfg = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": 1}})
    assert devices.device_names(cfg) == (["cpu"], 1)


def test_the_name_of_a_device_may_be_a_path():
    name = "MIG-GPU-a/1/0"
    with claim_devices([name], count=1) as claim:
        assert claim.devices == [name] and claim.is_alone
        with claim_devices([name], count=1):
            assert not claim.is_alone


def test_a_run_on_all_gpus_claims_all_of_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(devices.torch.version, "cuda", "13.0")
    cfg = OmegaConf.create({"trainer": {"accelerator": "gpu", "devices": 2}})
    names, count = devices.device_names(cfg)
    with claim_devices(names, count=count) as claim:
        assert sorted(claim.devices) == ["0", "1"]


@pytest.mark.parametrize(
    ("num_tasks", "count", "shown"), [(None, 2, "2,1"), ("2", 2, "2,0,1"), ("2", 1, "2")]
)
def test_a_run_sees_the_gpus_that_it_claims(monkeypatch, num_tasks, count, shown):
    """Of Slurm's tasks, only the first makes the claim."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0,1")
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    if num_tasks is not None:
        monkeypatch.setenv("SLURM_NTASKS", num_tasks)
    names = ["2", "0", "1"]
    with claim_devices(["0"], count=1), claim_devices(names, count=count) as claim:
        devices.show_claimed(claim, names)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown
