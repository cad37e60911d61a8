"""Numbers of the tasks that are none, or too small, are refused before anything is prepared."""

import re
from functools import partial

import jaxtyping
import pytest

from tasks import image, listops, pathfinder, recall, retrieval, text
from tasks.errors import DataError, check_numbers

GOOD = {"train": 8, "validation": 4, "test": 4}
TWO = {"train": 8, "test": 4}
HUB = {"source": "hub", "source_dir": None, "hub_name": "nowhere/none"}
DRAWN = {"source": "generate", "source_dir": None, "num_workers": 1, "num_examples": GOOD}
PREPARE = {
    "text": partial(
        text.prepare,
        **HUB,
        source_rows=TWO,
        tokens="bytes",
        min_frequency=1,
        validation="holdout",
        validation_fraction=0.1,
        seed=0,
    ),
    "image": partial(image.prepare, **HUB, source_rows=TWO, validation_fraction=0.1),
    "retrieval": partial(
        retrieval.prepare,
        source="lra_release",
        source_dir=None,
        num_examples=GOOD,
        tokens="bytes",
        min_frequency=1,
        max_document_len=8,
    ),
    "listops": partial(
        listops.prepare,
        **DRAWN,
        seed=0,
        generator_version=1,
        brackets="keep",
        min_len=4,
        max_len=24,
        max_depth=2,
        max_args=3,
    ),
    "pathfinder": partial(pathfinder.prepare, **DRAWN, size=32, seed=0, generator_version=2),
    "mqar": partial(
        recall.prepare_mqar,
        num_examples=GOOD,
        seed=0,
        generator_version=1,
        max_len=12,
        num_pairs=2,
        num_keys=9,
        num_values=9,
        distance_power=1.0,
        random_filler=True,
    ),
    "selective_copy": partial(
        recall.prepare_selective_copy,
        num_examples=GOOD,
        seed=0,
        generator_version=1,
        max_len=12,
        num_marked=2,
        num_values=9,
    ),
}
WRONG = [
    *(("text", name, value) for name in ("min_frequency", "seed") for value in ("x", None, -1)),
    *(("text", "validation_fraction", value) for value in ("x", None, 0, 1, True, [0.1])),
    *(("text", "source_rows", value) for value in (3, None, {"train": 8}, {**TWO, "test": "x"})),
    *(("image", "validation_fraction", value) for value in ("x", None)),
    ("image", "source_rows", {"train": 0, "test": 4}),
    *(("retrieval", name, "x") for name in ("min_frequency", "max_document_len", "num_examples")),
    *(("listops", name, "x") for name in ("seed", "min_len", "max_len", "max_depth", "max_args")),
    *(("listops", "max_args", value) for value in (1, 256)),
    ("listops", "min_len", 23),
    *(("listops", "num_workers", value) for value in ("x", 0, 1.5)),
    *(("listops", "num_examples", value) for value in (3, {**GOOD, "test": 1.5}, {**GOOD, "a": 1})),
    *(("pathfinder", name, "x") for name in ("size", "seed", "num_workers", "num_examples")),
    ("pathfinder", "size", 33),
    *(("mqar", name, "x") for name in ("max_len", "num_pairs", "num_keys", "num_values", "seed")),
    *(("mqar", "distance_power", value) for value in ("x", None, float("nan"), 0)),
    *(("selective_copy", name, None) for name in ("max_len", "num_marked", "num_values", "seed")),
]


@pytest.mark.parametrize(("task", "name", "value"), WRONG)
def test_a_number_that_is_none_is_refused_in_one_line(tmp_path, monkeypatch, task, name, value):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types itself
    option = {"text": "split_seed"}.get(task, "generator_seed") if name == "seed" else name
    with pytest.raises(DataError, match=rf"^task\.{option}(\.\w+)? is .*\bmust\b") as refused:
        PREPARE[task](tmp_path, **{name: value})
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["x", 3, None, ["a"], [True], [float("inf")]])
def test_a_list_of_numbers_is_one(value):
    check_numbers("task.channel_mean", [0, 1.5])
    with pytest.raises(DataError, match=re.escape(f"task.channel_mean is {value!r}; it must be")):
        check_numbers("task.channel_mean", value)
