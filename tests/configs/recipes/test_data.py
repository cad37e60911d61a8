"""What data each protocol reads: the switches of its preparation, and how much is generated."""

import pytest
from omegaconf import OmegaConf

TASKS = ("listops", "text", "retrieval", "image", "pathfinder")

CORRECT = {
    "brackets": "keep",
    "validation": "holdout",
    "tokens": "bytes",
    "append_eos": False,
    "zero_is_padding": False,
}
BLACK_IS_PADDING = {"zero_is_padding": True}
AMOS_DATA = {
    "listops": {"append_eos": True},
    "text": {"append_eos": True, "tokens": "characters", "validation": "test"},
    "retrieval": {"append_eos": True, "tokens": "characters"},
    "image": {},
    "pathfinder": {},
    "pathx": {},
}


@pytest.mark.by_recipe(
    {  # what is on beyond the defaults, which are the correct ones
        "skyformer": {task: {} for task in TASKS},
        "skyformer_legacy": {
            "listops": {"brackets": "drop"},
            "text": {"validation": "test"},
            "retrieval": {},
            "image": BLACK_IS_PADDING,
            "pathfinder": BLACK_IS_PADDING,
        },
        "schoenbat_code": {
            "listops": {"brackets": "drop"},
            "text": {"validation": "test"},
            "retrieval": {},
        },
        "smoke": {task: {} for task in TASKS},
        "lra_code": {
            "listops": {},
            "text": {"validation": "test"},
            "retrieval": {},
            "image": BLACK_IS_PADDING,
            "pathfinder": BLACK_IS_PADDING,
            "pathfinder64": BLACK_IS_PADDING,
            "pathx": BLACK_IS_PADDING,
        },
        "lra_paper": {
            "listops": {},
            "text": {"validation": "test"},
            "retrieval": {},
            "image": BLACK_IS_PADDING,
            "pathfinder": BLACK_IS_PADDING,
            "pathx": BLACK_IS_PADDING,
        },
        "s4_style": AMOS_DATA,
        "spt": AMOS_DATA,
        "laptop": {
            task: {} for task in (*TASKS, "listops_short", "mqar_small", "selective_copy_small")
        },
    }
)
def test_switches_of_the_data(recipe, task, expected, composed):
    cfg = composed(recipe, task).task
    reached = {**cfg.prepare, **cfg.load}  # what the functions of the task are called with
    known = {name: value for name, value in CORRECT.items() if name in cfg}
    assert {name: reached[name] for name in known} == known | expected


@pytest.mark.by_recipe(
    {  # rows of the splits of what is generated
        "skyformer": {"pathfinder": (160_000, 20_000, 20_000), "listops_short": (6000, 500, 1000)},
        "laptop": {"pathfinder": (20_000, 2000, 4000), "listops_short": (96_000, 8000, 8000)},
    }
)
def test_a_protocol_may_say_how_much_is_generated(recipe, task, expected, composed):
    rows = OmegaConf.to_container(composed(recipe, task).task.prepare.num_examples, resolve=True)
    assert tuple(rows[split] for split in ("train", "validation", "test")) == expected
