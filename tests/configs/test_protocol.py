"""A protocol is a recipe's default block with the differences of one task."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import macformer.runs.config  # noqa: F401  registers the resolver

RECIPE = {
    "default": {"steps": 10, "model": {"width": 8, "depth": "${.width}"}, "part": {"of": "a"}},
    "short": {"steps": 5},
    "long": {"model": {"width": 16}, "part": "${other}"},
    "longer": {"like": "long", "steps": 20},
    "emptied": None,
    "circle": {"like": "circle"},
    "nowhere": {"like": "shrot"},
}


def protocol(task: str, recipe: dict = RECIPE):
    root = {"recipe": recipe, "other": {"is": "b"}, "protocol": f"${{protocol:${{recipe}},{task}}}"}
    return OmegaConf.to_container(OmegaConf.create(root), resolve=True)["protocol"]


@pytest.mark.parametrize("task", ["unknown", "emptied"])
def test_a_task_without_a_block_has_the_default(task):
    assert protocol(task) == {"steps": 10, "model": {"width": 8, "depth": 8}, "part": {"of": "a"}}


def test_a_block_changes_one_key_and_keeps_the_others():
    assert protocol("short") == {**protocol("unknown"), "steps": 5}


def test_interpolations_see_the_changes_and_replace_what_they_stand_for():
    expected = {"steps": 10, "model": {"width": 16, "depth": 16}, "part": {"is": "b"}}
    assert protocol("long") == expected


def test_a_block_may_change_another_task():
    assert protocol("longer") == {**protocol("long"), "steps": 20}


@pytest.mark.parametrize("task", ["circle", "nowhere"])
def test_a_block_like_none_is_refused(task):
    with pytest.raises(OmegaConfBaseException, match="blocks are circle, default, long"):
        protocol(task)


@pytest.mark.parametrize("default", [{}, {"default": None}])
def test_a_recipe_without_a_default_block_is_refused(default):
    with pytest.raises(OmegaConfBaseException, match="recipe bare has no block default"):
        protocol("short", {"name": "bare", "short": {"steps": 5}, **default})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"short": 5}, "recipe.short is 5; it must be a mapping"),
        ({"short": ["steps"]}, "recipe.short is \\['steps'\\]; it must be a mapping"),
        ({"short": False}, "recipe.short is false; it must be a mapping"),
        ({"default": "long"}, "recipe.default is long; it must be a mapping"),
        ({"short": {"like": "long"}, "long": 5}, "recipe.long is 5; it must be a mapping"),
    ],
)
def test_a_block_that_is_no_mapping_is_refused(changes, fault):
    with pytest.raises(OmegaConfBaseException, match=fault):
        protocol("short", {**RECIPE, **changes})
