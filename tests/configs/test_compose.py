"""Every option composes, every cell of the tables builds, and the command line wins."""

from pathlib import Path

import pytest
from hydra.utils import instantiate

import configs
from macformer.runs.config import compose

ROOT = Path(configs.__path__[0])
# The contract of attentions builds each of them, and the tests of recipes each of those.
GROUPS = ("task", "ppsbn", "model", "trainer", "callbacks", "logger")
TOY = ("model.embed_dim=8", "model.encoder.ffn_dim=8", "max_seq_len=16")


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / group).glob("*.yaml") if not p.stem.startswith("_"))


def compose_train(*overrides: str):
    return compose(*overrides)


def test_the_options_are_found():
    assert len(options("attention")) >= 14 and len(options("task")) >= 6
    assert {"with", "without"} <= set(options("ppsbn"))


@pytest.mark.parametrize("choice", [f"{g}={o}" for g in GROUPS for o in options(g)])
def test_every_option_composes(choice):
    assert compose_train(choice).max_steps > 0


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes(experiment):
    assert compose_train(f"experiment={experiment}").sweep != "runs"


@pytest.mark.parametrize("ppsbn", options("ppsbn"))
def test_every_ppsbn_builds(ppsbn):
    cfg = compose_train("attention=rmfa_exp", f"ppsbn={ppsbn}", *TOY)
    assert len(instantiate(cfg.model).encoder.layers) == 2


def test_the_command_line_wins_over_the_recipe():
    cfg = compose_train("task=text", "recipe=skyformer", "max_steps=7", "learning_rate=0.5")
    assert (cfg.max_steps, cfg.trainer.max_steps, cfg.optimizer.lr) == (7, 7, 0.5)
    assert cfg.scheduler.max_steps == 7
    assert cfg.model.encoder.max_seq_len == cfg.data.padded_len == 4000
    assert cfg.batch_size == 32 and cfg.max_seq_len == 4000  # still the recipe's


def test_a_task_that_a_recipe_does_not_know_takes_its_default_block():
    cfg = compose_train("task=pathfinder64", "recipe=smoke")
    assert cfg.protocol == cfg.recipe.default


def test_the_command_line_wins_over_the_switches_of_a_recipe():
    cfg = compose_train("task=listops", "recipe=skyformer_legacy", "task.brackets=keep")
    assert cfg.task.prepare.brackets == "keep"
    assert cfg.task.vocab_size == 32  # still the recipe's


def test_a_recipe_that_knows_no_task_takes_its_whole_length():
    lengths = {
        task: compose_train(f"task={task}").max_seq_len for task in ("pathx", "pathfinder64")
    }
    assert lengths == {"pathx": 128**2, "pathfinder64": 64**2}
