"""Options and environment of every test, and small runs composed as by the command line."""

import copy
import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, as by Lightning

# The check of shapes keeps bytecode of its own, for what is first imported within a module of ours,
# too: compiling the packages below once more takes seconds in each process.
import matplotlib.pyplot  # noqa: F401
import pandas  # noqa: F401
import pytest
import pytorch_lightning  # noqa: F401
import scipy.ndimage
import scipy.stats  # noqa: F401
import torch._dynamo
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from macformer.record import CONFIG_NAME
from macformer.runs.config import compose
from macformer.training import ClassificationModule


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="record the losses of tests/golden anew, with one process",
    )


def pytest_collection_finish() -> None:
    """Leave what is imported and collected by now out of every later search for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_sessionfinish() -> None:
    """Let the end of the process find what belongs to it."""
    gc.unfreeze()


TINY = (
    "task=listops_short",
    "recipe=smoke",
    "logger=curve",
    "task.num_examples={train: 64, validation: 20, test: 27}",
    "task.min_len=4",
    "task.max_len=24",
    "batch_size=8",
    "max_steps=8",
    "eval_interval=4",
    "warmup_batches=1",
    "log_interval=2",
    "cost.latency_examples=3",
)


@pytest.fixture(autouse=True, scope="session")
def signals_stop() -> None:
    """Let signals do what they do in a terminal; nohup and background jobs have some ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def packaged_configurations_are_parsed_once() -> Iterator[None]:
    """Copy what was read before: no test writes into ``configs/``, and most of them compose."""
    # found as Hydra finds it: its search for plugins makes every class of theirs anew
    (packaged,) = (
        source for source in Plugins.instance().discover(ConfigSource) if source.scheme() == "pkg"
    )
    read, known = packaged.load_config, {}

    def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
        place = source.path, config_path
        if place not in known:
            known[place] = read(source, config_path)
        return copy.deepcopy(known[place])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "load_config", load_config)
        yield


@pytest.fixture(autouse=True)
def no_command_is_left() -> Iterator[None]:
    """Forget the command of Hydra's that a test has run: paths would be those of its folder."""
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def tiny() -> tuple[str, ...]:
    return TINY


# A callback for cells in processes of their own: it kills one of them before a given step.
KILLER = """
import os, signal, time
from pytorch_lightning.callbacks import Callback

class KillBefore(Callback):
    def __init__(self, *, step, whom, **_):
        self.step, self.whom = step, whom

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid() if self.whom == "self" else os.getppid(), signal.SIGKILL)
            time.sleep(60)
"""


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return the options for a bar that sends SIGKILL to its process or to its parent.

    A callback in place of one that only watches, because another one would make it another run.
    """
    folder = tmp_path / "killer"
    folder.mkdir()
    (folder / "killer.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def option(*, step: int, whom: str = "self") -> str:
        target = "_target_: killer.KillBefore"
        return f"++callbacks.progress={{{target}, step: {step}, whom: {whom}}}"

    return option


@pytest.fixture
def power_cut(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager]:
    """Return a context in which training stops before a given step."""
    training_step = ClassificationModule.training_step

    @contextmanager
    def stop(*, before_step: int) -> Iterator[None]:
        def step(self, dataloader_iter):
            if self.global_step == before_step:
                raise RuntimeError("power cut")
            return training_step(self, dataloader_iter)

        with monkeypatch.context() as patch:
            patch.setattr(ClassificationModule, "training_step", step)
            yield

    return stop


@pytest.fixture
def make_run(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[DictConfig, Path]]:
    """Compose a tiny run and write its config.yaml; return both."""

    def make(
        *overrides: str, folder: str = "run", tiny: tuple[str, ...] = TINY
    ) -> tuple[DictConfig, Path]:
        run_dir = tmp_path / folder
        run_dir.mkdir(exist_ok=True)
        paths = [f"paths.run_dir={run_dir}", f"paths.data_dir={tmp_path / 'data'}"]
        cfg = OmegaConf.create(
            OmegaConf.to_container(compose(*tiny, *paths, *overrides), resolve=True)
        )
        assert isinstance(cfg, DictConfig)
        OmegaConf.save(cfg, run_dir / CONFIG_NAME)
        return cfg, run_dir

    return make
