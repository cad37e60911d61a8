"""Which choices make a row of the tables."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

import configs
from macformer.runs.config import ConfigError, compose
from macformer.runs.row import PLAIN


def composed(*overrides: str):
    return compose("task=listops_short", "recipe=smoke", *overrides)


def test_another_mixer_is_a_row_of_its_own():
    assert composed("attention=rmfa_exp").choices.attention == "rmfa_exp"
    cfg = composed("mixer=s4d")
    assert cfg.choices.attention == "s4d"
    assert cfg.cell.startswith("listops_short-s4d-ppsbn_without-smoke-seed0-")


@pytest.mark.parametrize("choice", ["ppsbn=with", "rotary=with", "attention=rmfa_exp"])
def test_what_has_no_effect_on_a_mixer_is_refused(choice):
    group, name = choice.split("=")
    message = f"{group}={name} has no effect under mixer=s4d, which has no attention; leave {group}"
    with pytest.raises(ConfigError, match=message):
        composed("mixer=s4d", choice)


def test_what_is_left_is_what_train_yaml_chooses():
    defaults = OmegaConf.load(Path(configs.__path__[0], "train.yaml")).defaults
    chosen = {key: value for node in defaults if node != "_self_" for key, value in node.items()}
    assert {group: chosen[group] for group in PLAIN} == PLAIN
