"""What is measured around training."""

import time

import pytest
import torch

from macformer.callbacks import MemoryMeter, Stopwatch, throughput

BATCH = {
    "labels": torch.zeros(3),
    "key_padding_mask": torch.tensor([[False, True], [False, False], [True, True]]),
}


def test_stopwatch_counts_only_while_it_runs(monkeypatch):
    now = iter([10.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(now))
    watch = Stopwatch(torch.device("cpu"))
    watch.count(BATCH)  # before the start
    watch.start()
    watch.count(BATCH)
    watch.stop()
    watch.count(BATCH)  # during a validation
    watch.start()
    watch.count(BATCH)
    watch.stop()
    # 2 x 3 examples, 2 x 3 tokens, 2 x 6 positions in 3 s over 2 ranks
    assert watch.rates(2) == pytest.approx(
        {"examples_per_second": 4.0, "tokens_per_second": 4.0, "positions_per_second": 8.0}
    )


def test_stopwatch_without_time_gives_no_rate():
    assert set(Stopwatch(torch.device("cpu")).rates(1).values()) == {None}


def test_cpu_peak_is_that_of_the_stretch():
    meter = MemoryMeter(torch.device("cpu"))
    big = torch.ones(64 * 2**20 // 4)  # 64 MiB, before the reset
    meter.reset()
    del big
    small = torch.ones(16 * 2**20 // 4)
    time.sleep(0)
    peak_mib = meter.read_gib() * 1024
    del small
    assert peak_mib < 60  # the earlier 64 MiB do not count twice
    meter.reset()
    large = torch.ones(96 * 2**20 // 4)
    assert meter.read_gib() * 1024 == pytest.approx(96, abs=12)
    del large
