"""Every option composes, every cell of the tables builds, and the command line wins."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

import configs
from macformer.identity import register_resolver

ROOT = Path(configs.__path__[0])
GROUPS = ("task", "attention", "ppsbn", "recipe", "model", "trainer", "callbacks", "logger")
TASKS = ("listops", "text", "image", "retrieval", "pathfinder")
TOY = ("model.embed_dim=8", "model.ffn_dim=8", "max_seq_len=16")


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / group).glob("*.yaml") if not p.stem.startswith("_"))


def compose_train(*overrides: str):
    register_resolver()
    with initialize_config_module("configs", version_base="1.3"):
        return compose("train", list(overrides))


def test_the_options_are_found():
    assert len(options("attention")) >= 14 and len(options("task")) >= 6
    assert {"with", "without"} <= set(options("ppsbn"))


@pytest.mark.parametrize("choice", [f"{g}={o}" for g in GROUPS for o in options(g)])
def test_every_option_composes(choice):
    assert compose_train(choice).max_steps > 0


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes(experiment):
    assert compose_train(f"experiment={experiment}").sweep != "runs"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("ppsbn", ["with", "without"])
def test_every_cell_builds(task, ppsbn):
    for attention in options("attention"):
        cfg = compose_train(f"task={task}", f"attention={attention}", f"ppsbn={ppsbn}", *TOY)
        model = instantiate(cfg.model)
        assert len(model.layers) == 2, attention


def test_the_command_line_wins_over_the_recipe():
    cfg = compose_train("task=text", "recipe=skyformer", "max_steps=7", "learning_rate=0.5")
    assert (cfg.max_steps, cfg.trainer.max_steps, cfg.optimizer.lr) == (7, 7, 0.5)
    assert cfg.scheduler.max_steps == 7
    assert cfg.batch_size == 32 and cfg.max_seq_len == 4000  # still the recipe's


@pytest.mark.parametrize(
    ("task", "expected"),
    [  # Skyformer, src/config.py: length, batch, rate, warm-up; 50,000 steps for all
        ("listops", (2000, 32, 1e-4, 1000)),
        ("text", (4000, 32, 1e-4, 80)),
        ("retrieval", (4000, 16, 2e-4, 800)),
        ("image", (1024, 256, 1e-4, 175)),
        ("pathfinder", (1024, 128, 2e-4, 312)),
    ],
)
def test_skyformer_has_the_published_budget(task, expected):
    cfg = compose_train(f"task={task}", "recipe=skyformer")
    assert (cfg.max_seq_len, cfg.batch_size, cfg.learning_rate, cfg.warmup_steps) == expected
    assert cfg.max_steps == 50_000
    protocol = cfg.protocol
    assert (protocol.embed_dim, protocol.num_layers, protocol.num_heads) == (64, 2, 2)


def test_a_task_that_a_recipe_does_not_know_takes_its_default_block():
    cfg = compose_train("task=pathfinder64", "recipe=smoke")
    assert cfg.protocol == cfg.recipe.default
