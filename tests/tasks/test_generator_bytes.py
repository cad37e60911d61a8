"""A seed gives the bytes that it has always given, on every machine.

A failure after a change on purpose asks for two things: the new hash here, and a higher version
in tasks/listops/task.py or tasks/pathfinder/task.py and in the task's configuration.
"""

import hashlib
from functools import partial

import pytest
from hydra.utils import instantiate

from tasks.errors import DataError
from tasks.listops.generate import generate_listops
from tasks.pathfinder.generate import generate_pathfinder

LISTOPS = partial(generate_listops, 64, min_len=500, max_len=2000, max_depth=10, max_args=10)


@pytest.mark.parametrize(
    ("generate", "expected"),
    [
        pytest.param(
            LISTOPS,
            "2924eea0f797a964a194b12c37796b9b5901a742e5debecf37701155c8de6613",
            id="listops",
        ),
        pytest.param(
            partial(generate_pathfinder, 8, size=32),
            "f33686289438ec98f53c38cda2b322c4f7963d2a9d66baaa936609edd2eeb19f",
            id="pathfinder",
        ),
        pytest.param(
            partial(generate_pathfinder, 8, size=128),
            "e2b964c8d6b45afe0f38c8bb28b50c5f8e48b678abaa91842957e7fbe3b76e96",
            id="pathx",
        ),
    ],
)
def test_a_seed_gives_the_same_bytes_as_ever(generate, expected):
    digest = hashlib.sha256()
    for chunk in generate(seed=0, num_workers=1):
        for array in chunk:
            digest.update(array.tobytes())
    assert digest.hexdigest() == expected


@pytest.mark.parametrize("task", ["listops", "pathfinder", "pathx"])
def test_a_configuration_that_means_another_generator_is_refused(task, composed, tmp_path):
    """Each shipped one means the one that there is, or the contract of tasks would not hold."""
    prepare = instantiate(composed(f"task={task}").task.prepare)
    other = prepare.keywords["generator_version"] - 1
    with pytest.raises(DataError, match=f"generator_version is {other}, but this code"):
        prepare(tmp_path, generator_version=other)
    assert not list(tmp_path.iterdir())
