"""Ten steps of every attention and of every recipe's model, equal to what they were.

A change that should change no number leaves losses.json alone. One that should is recorded by
``make golden`` and committed with its reason.
"""

import json
import platform
import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

import configs
from macformer.runs import identity
from macformer.runs.build import build_model
from macformer.runs.config import compose
from macformer.training.step import optimisation_step

LOSSES = Path(__file__).with_name("losses.json")
CONFIGS = Path(configs.__path__[0])
NUM_STEPS = 10
BATCH_SIZE, LENGTH = 4, 48
TINY = (
    "model.embed_dim=16",
    "model.encoder.ffn_dim=16",
    "model.encoder.num_layers=2",
    f"max_seq_len={LENGTH}",
    f"max_steps={NUM_STEPS}",
    "warmup_steps=4",
    "learning_rate=3e-3",  # a recipe's own may diverge at this size, which magnifies rounding
)
TINY_HEADS = ("mixer.num_heads=2", "mixer.qkv_dim=16")


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("[!_]*.yaml"))


CASES = {
    **{f"mixer={name}": (f"mixer={name}",) for name in _options("mixer") if name != "attention"},
    **{
        f"{row}, ppsbn={ppsbn}": (f"attention={row}", f"ppsbn={ppsbn}")
        for row in _options("attention")
        for ppsbn in ("without", "with")
    },
    "rmfa_exp, ppsbn=with_batch": ("attention=rmfa_exp", "ppsbn=with_batch"),
    **{
        f"{recipe}, {task}": (f"recipe={recipe}", f"task={task}")
        for recipe in _options("recipe")
        for task in ("listops", "retrieval", "image", "pathfinder")
    },
}


def draw_batches(cfg: DictConfig) -> list[dict[str, Tensor]]:
    """Draw rows of random lengths, the first one full; pairs where the task has pairs."""
    rows = (BATCH_SIZE, 2) if cfg.task.paired else (BATCH_SIZE,)
    batches = []
    for _ in range(NUM_STEPS):
        lengths = torch.randint(LENGTH // 4, LENGTH + 1, rows)
        lengths[0] = LENGTH
        mask = torch.arange(LENGTH) >= lengths[..., None]
        ids = torch.randint(1, cfg.task.vocab_size, mask.shape).masked_fill(mask, 0)
        labels = torch.randint(cfg.task.num_classes, (BATCH_SIZE,))
        batches.append({"inputs": ids, "key_padding_mask": mask, "labels": labels})
    return batches


def train(overrides: tuple[str, ...]) -> list[float]:
    """Return the loss before each of the first steps."""
    heads = TINY_HEADS if not any(o.startswith("mixer=") for o in overrides) else ()
    cfg = compose(*TINY, *heads, *overrides)
    torch.manual_seed(0)
    batches = draw_batches(cfg)
    model = build_model(cfg).train()
    gradients = instantiate(cfg.step.gradients)(model, clip=instantiate(cfg.clip))
    optimizer = instantiate(cfg.optimizer)(model.parameters())
    scheduler = instantiate(cfg.scheduler)(optimizer)
    losses = [optimisation_step(gradients, batch, optimizer, scheduler)[0] for batch in batches]
    return torch.stack(losses).tolist()


def describe_machine() -> dict[str, str]:
    """Say what must be equal for the same bits: MKL has other kernels for other vendors, too."""
    cpuinfo = Path("/proc/cpuinfo")
    vendor = re.search(
        r"^vendor_id\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "", re.M
    )
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "vendor": vendor[1] if vendor else platform.processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }


def record(case: str, losses: list[float]) -> None:
    golden = json.loads(LOSSES.read_text()) if LOSSES.exists() else {"losses": {}}
    golden["recorded"] = describe_machine()
    golden["losses"][case] = losses
    golden["losses"] = dict(sorted(golden["losses"].items()))
    LOSSES.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")


@pytest.fixture(autouse=True)
def values_unchecked(monkeypatch):
    """Compose each case once; what is done about the values above would compose it again."""
    monkeypatch.setattr(identity, "check_values", lambda cfg: None)
    monkeypatch.setattr(identity, "settle_numbers", lambda cfg: None)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_recorded(case, request):
    losses = train(CASES[case])
    if request.config.getoption("--update-golden"):
        record(case, losses)
    golden = json.loads(LOSSES.read_text())
    recorded = golden["losses"][case]
    if golden["recorded"] == describe_machine():
        assert losses == recorded
    torch.testing.assert_close(losses, recorded, rtol=1e-6, atol=1e-6)


def test_every_record_has_a_case():
    assert set(json.loads(LOSSES.read_text())["losses"]) == set(CASES)
