"""Every shipped study composes at every size and offers what the runner calls."""

from pathlib import Path

import pytest

import configs
from macformer.studies.runner import load_study

NAMES = sorted(path.stem for path in (Path(configs.__path__[0]) / "study").glob("*.yaml"))


def test_the_studies_are_found():
    assert {"approximation", "speed", "ppsbn", "cost"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_complete(compose_study, name):
    cfg = compose_study(f"study={name}")
    assert cfg.study.name == name
    assert {"smoke", "table", "full"} == set(cfg.study.sizes)
    study = load_study(cfg)
    assert all(callable(getattr(study, part)) for part in ("points", "measure", "table", "plot"))


@pytest.mark.parametrize("size", ["smoke", "table", "full"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "cost"])  # reads a sweep
def test_cells_are_distinct(compose_study, name, size):
    cfg = compose_study(f"study={name}", f"size={size}")
    points = load_study(cfg).points(cfg)
    assert len({tuple(sorted(point.items())) for point in points}) == len(points) > 0
    assert {point["seed"] for point in points} == set(cfg.seeds)
