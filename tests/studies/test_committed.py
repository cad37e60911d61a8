"""The rows that the pages show are those of today's settings: they can be drawn and added to."""

from pathlib import Path

import pandas as pd
import pytest

from macformer.studies.runner import TEXT, load_study, point_key, settings_of

PAGES = Path(__file__).parents[2] / "docs" / "pages" / "studies"
OF_TEXT = "{task: text, task.source: local, max_seq_len: 512, batch_size: 16}"  # on the page


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("ppsbn", "size=table"),
        ("speed", "size=table"),
        ("recall", "size=table"),
        ("range", f"+study.settings.tasks.text={OF_TEXT}"),
    ],
)
def test_rows_of_a_page_have_the_settings_of_its_study(compose_study, name, option):
    rows = pd.read_csv(PAGES / f"{name}.csv", dtype=TEXT).to_dict("records")
    cfg = compose_study(f"study={name}", option)
    assert all(row["settings"] == settings_of(row, cfg) for row in rows)


@pytest.mark.parametrize("name", ["ppsbn", "speed"])
def test_rows_of_a_page_are_points_of_its_study(compose_study, name):
    rows = pd.read_csv(PAGES / f"{name}.csv", dtype=TEXT)
    cfg = compose_study(f"study={name}", "size=table")
    known = {point_key(point, cfg) for point in load_study(cfg).points(cfg)}
    assert len(known & set(rows["point"])) > 0.9 * rows["point"].nunique()
