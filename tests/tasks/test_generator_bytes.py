"""A seed gives the bytes that it has always given, on every machine.

A failure after a change on purpose asks for two things: the new hash here, and a higher version
in the task's module and in its configuration.
"""

import hashlib
from functools import partial

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tasks.errors import DataError
from tasks.listops.generate import generate_listops
from tasks.pathfinder.generate import generate_pathfinder
from tasks.recall.mqar import Mqar
from tasks.recall.selective_copy import SelectiveCopy
from tasks.recall.task import generate as generate_recall

MQAR = Mqar(
    max_len=512,
    num_pairs=64,
    num_keys=4095,
    num_values=4096,
    distance_power=0.01,
    random_filler=True,
)
LISTOPS = partial(generate_listops, 64, min_len=500, max_len=2000, max_depth=10, max_args=10)


def recall(law):
    def generate(*, seed: int, num_workers: int):
        for chunk in generate_recall(law, 8, seed=seed, split=0):
            yield chunk.ids, chunk.labels, chunk.places

    return generate


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
        pytest.param(
            recall(MQAR),
            "db5245712b65124b1a080b63f10009a6897ed1e290c00c62c0884fe723d28292",
            id="mqar",
        ),
        pytest.param(
            recall(SelectiveCopy(max_len=4112, num_marked=16, num_values=15)),
            "9e359223afd20efbf7d748fefd8d516fad9606c8788f0210156860e558685bae",
            id="selective_copy",
        ),
    ],
)
def test_a_seed_gives_the_same_bytes_as_ever(generate, expected):
    digest = hashlib.sha256()
    for chunk in generate(seed=0, num_workers=1):
        for array in chunk:
            digest.update(array.tobytes())
    assert digest.hexdigest() == expected


@pytest.mark.parametrize("task", ["listops", "pathfinder", "pathx", "mqar", "selective_copy"])
def test_a_configuration_that_means_another_generator_is_refused(task, composed, tmp_path):
    """Each shipped one means the one that there is, or the contract of tasks would not hold."""
    part = OmegaConf.to_container(composed(f"task={task}").task.prepare, resolve=True)
    prepare = instantiate(part)
    other = prepare.keywords["generator_version"] - 1
    with pytest.raises(DataError, match=f"generator_version is {other}, but this code"):
        prepare(tmp_path, generator_version=other)
    assert not list(tmp_path.iterdir())
