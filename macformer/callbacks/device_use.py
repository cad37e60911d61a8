"""How long a run holds its devices, what energy they draw meanwhile, and who else uses them."""

from math import isnan, nan
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from macformer.callbacks.energy import NO_COUNTER, energy_counter
from macformer.callbacks.neighbours import core_times, stranger_counter

# Of the time in which its threads could run. An idle machine is below 0.01.
MAX_WAITING_SHARE = 0.05
SECONDS_BETWEEN = 10.0  # readings, at least: counters of energy turn over within minutes


class DeviceUse(Callback):
    """Count seconds and joules from the setup of training or testing to its end.

    All that a user pays for is in: warm-up, validation, checkpoints, waiting for data. Of several
    tests the last one counts, for a run needs one. A resumed run adds to what its checkpoint had
    counted; the time between the last checkpoint and the interruption is lost. In distributed
    training the figures are those of one rank's device, and ranks that share a machine's sockets
    have no energy of their own.

    ``energy_source`` says what counts the joules: see :mod:`macformer.callbacks.energy`.
    ``others`` says how other work was noticed: threads that waited for a core while others ran, or
    other processes on the GPU. It is None where none was.
    """

    def __init__(self) -> None:
        # Joules are NaN once they are unknown.
        self._totals: dict[str, float] = dict.fromkeys(("seconds", "joules", "ran", "waited"), 0.0)
        self._test = dict(self._totals)
        self._strangers = 0
        self._started: dict[str, float] | None = None
        self._stage = ""
        self._energy = NO_COUNTER

    @property
    def energy_source(self) -> str | None:
        return self._energy.source

    @property
    def seconds(self) -> float:
        return self._totals["seconds"] + self._test["seconds"]

    @property
    def joules(self) -> float | None:
        joules = self._totals["joules"] + self._test["joules"]
        return None if isnan(joules) else joules

    @property
    def others(self) -> str | None:
        if self._strangers:
            return f"{self._strangers} other processes used the GPU"
        waited = self._totals["waited"] + self._test["waited"]
        share = waited / max(waited + self._totals["ran"] + self._test["ran"], 1e-9)
        if share > MAX_WAITING_SHARE:
            return f"others used its cores: it waited for them {100 * share:.0f} % of the time"
        return None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        device = trainer.strategy.root_device
        of_one_rank = device.type != "cpu" or trainer.world_size == 1
        self._energy = energy_counter(device) if of_one_rank else NO_COUNTER
        self._count_strangers = stranger_counter(device)
        self._stage = stage
        if stage == "test":
            self._test = dict.fromkeys(self._test, 0.0)
        self._started = self._read()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self._advance_in_time()

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        self._advance_in_time()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        self._advance_in_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._strangers = max(self._strangers, self._count_strangers())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._strangers = max(self._strangers, self._count_strangers())

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._advance()
        self._started = None

    def state_dict(self) -> dict[str, Any]:
        self._advance()
        return {**self._totals, "strangers": self._strangers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._totals = {name: state_dict[name] for name in self._totals}
        self._strangers = state_dict["strangers"]

    def _read(self) -> dict[str, float]:
        ran, waited, others = core_times() or (nan, nan, nan)
        joules = self._energy.read()
        return {
            "seconds": perf_counter(),
            "joules": nan if joules is None else joules,
            "ran": ran,
            "waited": waited,
            "others": others,
        }

    def _advance_in_time(self) -> None:
        if (
            self._started is not None
            and perf_counter() - self._started["seconds"] > SECONDS_BETWEEN
        ):
            self._advance()

    def _advance(self) -> None:
        """Move what has passed since the last reading to the totals."""
        if self._started is None:
            return
        read = self._read()
        passed = {name: read[name] - self._started[name] for name in read}
        # More threads than cores wait for each other; what others did not run, they did not take.
        passed["waited"] = max(min(passed["waited"], passed["others"]), 0.0)
        if isnan(passed["ran"]):  # the system did not tell, at one end: that says nothing of others
            passed |= {"ran": 0.0, "waited": 0.0}
        totals = self._test if self._stage == "test" else self._totals
        for name in totals:
            totals[name] += passed[name]
        self._started = read
