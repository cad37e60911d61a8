"""A stopwatch gives seconds of one call; on a GPU those of the device, over inputs in turn."""

import time
from contextlib import contextmanager, nullcontext

import pytest
import torch

from macformer.benchmark import clock


class StandInDevice:
    """CUDA with a clock of its own: a replay does what was recorded, a call of the host is free."""

    def __init__(self, monkeypatch):
        self.seconds, self.recording, self.num_replays, self.current = 0.0, None, 0, 0
        self.memory = []  # what each graph was recorded with
        for name, stand_in in {
            "CUDAGraph": lambda: self,
            "current_stream": lambda device: self,
            "stream": lambda stream: nullcontext(),
            "graph": lambda graph, **options: self.memory.append(options) or self,
            "device": self.on,
            "Event": lambda enable_timing: Event(self),
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(clock, "memory_pool", lambda device: "its pool")
        monkeypatch.setattr(clock, "side_stream", lambda device: self)

    @contextmanager
    def on(self, device):
        self.current, before = device.index, self.current
        yield
        self.current = before

    def wait_stream(self, stream):
        pass

    def __enter__(self):
        self.recording = []

    def __exit__(self, *_):
        self.recorded, self.recording = self.recording, None

    def call(self, seconds):
        if self.recording is not None:
            self.recording.append(seconds)

    def replay(self):
        self.num_replays += 1
        self.seconds += sum(self.recorded)


class Event:
    def __init__(self, device):
        self.device = device

    def record(self):
        self.seconds = self.device.seconds if self.device.current == 1 else 0.0  # of an idle one

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1e3 * (other.seconds - self.seconds)


def test_a_gpu_gives_the_mean_over_its_inputs_without_the_host(monkeypatch):
    device = StandInDevice(monkeypatch)

    def call(seconds):
        time.sleep(0.001)  # the host's share, a hundred times the device's
        device.call(seconds)

    calls = [lambda s=seconds: call(s) for seconds in (1e-5, 2e-5, 6e-5)]
    stopwatch = clock.make_stopwatch(calls, torch.device("cuda:1"), cpu_time=True)
    assert stopwatch() == pytest.approx(3e-5)
    assert stopwatch() == pytest.approx(3e-5)
    assert device.num_replays > 200  # enough for the resolution of events


def test_graphs_of_all_cases_share_their_memory(monkeypatch):
    """A pool keeps what it freed for the stream that had it: one pool, and one stream."""
    device = StandInDevice(monkeypatch)
    for _ in range(2):
        clock.make_stopwatch([lambda: device.call(1.0)], torch.device("cuda:1"), cpu_time=False)
    assert device.memory == [{"pool": "its pool", "stream": device}] * 2


def test_a_cpu_gives_the_time_of_the_call_itself():
    watches = [
        clock.make_stopwatch([lambda: time.sleep(0.05)], torch.device("cpu"), cpu_time=cpu_time)
        for cpu_time in (False, True)
    ]
    wall, cpu = (stopwatch() for stopwatch in watches)
    assert wall >= 0.05 and cpu < 0.05
