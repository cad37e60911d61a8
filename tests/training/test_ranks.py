"""What ranks sum up over an interval of the curve, across an interruption."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from macformer.callbacks import Throughput
from macformer.training.lightning_module import ClassificationModule, _no_sums


def test_ranks_that_resume_count_the_sums_of_their_checkpoint_once():
    sums = {name: float(place + 1) for place, name in enumerate(_no_sums())}
    ranks: list[Any] = [SimpleNamespace(global_rank=rank) for rank in range(3)]
    for rank in ranks:
        ClassificationModule.on_load_checkpoint(rank, {"interval": sums, "train_loss": 0.5})
    assert {name: sum(float(r._sums[name]) for r in ranks) for name in sums} == sums
    assert [rank.train_loss for rank in ranks] == [0.5] * 3


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_resumed_run_that_only_tests_has_the_rates_of_all_ranks(num_ranks):
    """Two intervals of 10 batches, 80 examples and 2 seconds on each rank."""
    throughput = Throughput(warmup_batches=0, interval=10)
    trainer: Any = SimpleNamespace(world_size=num_ranks)
    throughput.setup(trainer, None, "fit")
    rows = torch.tensor([[10, 80, 800, 1600, 2.0]] * 2, dtype=torch.float64)
    throughput.load_state_dict({"intervals": rows})
    assert throughput.train["examples"] == 160 * num_ranks
    assert throughput.train["examples_per_second"] == 40 * num_ranks
    assert throughput.train["tokens_per_second"] == 400 * num_ranks
