"""Which choices make a row of the tables."""

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf.errors import OmegaConfBaseException

from macformer.runs.identity import register_resolver
from macformer.runs.row import PLAIN


def composed(*overrides: str):
    register_resolver()
    with initialize_config_module("configs", version_base="1.3"):
        options = ["task=listops_short", "recipe=smoke", *overrides]
        cfg = compose("train", options, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def test_another_mixer_is_a_row_of_its_own():
    assert composed("attention=rmfa_exp").choices.attention == "rmfa_exp"
    cfg = composed("mixer=s4d")
    assert cfg.choices.attention == "s4d"
    assert cfg.cell.startswith("listops_short-s4d-ppsbn_without-smoke-seed0-")


@pytest.mark.parametrize("choice", ["ppsbn=with", "rotary=with", "attention=rmfa_exp"])
def test_what_has_no_effect_on_a_mixer_is_refused(choice):
    group, name = choice.split("=")
    message = f"{group}={name} has no effect under mixer=s4d, which has no attention; leave {group}"
    with pytest.raises(OmegaConfBaseException, match=message):
        _ = composed("mixer=s4d", choice).cell


def test_what_is_left_is_what_train_yaml_chooses():
    choices = composed().hydra.runtime.choices
    assert {group: choices[group] for group in PLAIN} == PLAIN
