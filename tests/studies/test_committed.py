"""The rows that the pages show are those of today's settings: they can be drawn and added to."""

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from macformer.runs.identity import digest
from macformer.studies.runner import TEXT, load_study, point_key

PAGES = Path(__file__).parents[2] / "docs" / "pages" / "studies"


@pytest.mark.parametrize("name", ["ppsbn", "speed"])
def test_rows_of_a_page_are_points_of_its_study(compose_study, name):
    rows = pd.read_csv(PAGES / f"{name}.csv", dtype=TEXT)
    cfg = compose_study(f"study={name}", "size=table")
    (settings,) = rows["settings"].unique()
    assert settings == digest(OmegaConf.to_container(cfg.study.settings, resolve=True))
    known = {point_key(point, cfg) for point in load_study(cfg).points(cfg)}
    assert len(known & set(rows["point"])) > 0.9 * rows["point"].nunique()
