"""A finished run is taken for finished only on the data that it was trained on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from macformer.evaluate import evaluate
from macformer.record import write_config
from macformer.runs import cell
from macformer.runs.build import build_data
from macformer.runs.data_now import DataNow

ROWS = "Source\tTarget\n" + "( ( ( [MAX 2 ) 9 ) ] )\t9\n( ( ( [MIN 2 ) 9 ) ] )\t2\n" * 10


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Write the three files of a source of the user's own, of 20 rows each."""
    folder = tmp_path / "source" / "listops-1000"
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        (folder / f"basic_{split}.tsv").write_text(ROWS)
    return folder


@pytest.fixture
def composed(make_run, release):
    return make_run(
        "task.source=lra_release",
        f"task.source_dir={release.parent}",
        "task.num_examples={train: 20, validation: 20, test: 20}",
        "max_steps=2",
        "eval_interval=2",
    )


@pytest.fixture
def finished(composed):
    """Return a configuration and the folder of its run, with the record of a finished one."""
    cfg, run_dir = composed
    data: Any = build_data(cfg)
    record: dict[str, Any] = {"status": "finished", "accuracy": {"best": {"test": 0.4}}}
    record |= {"data_digest": data.digest, "data_folder": data.folder_name}
    (run_dir / "metrics.json").write_text(json.dumps(record))
    return cfg, run_dir


def read_digest(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())["data_digest"]


def change_a_label(release):
    path = release / "basic_test.tsv"
    path.write_text(path.read_text().replace("\t9\n", "\t8\n", 1))


def prepared_folders(run_dir):
    return sorted(run_dir.parent.glob("data/listops/lra_release-*"))


def test_a_source_that_has_changed_is_named_with_both_digests(composed, release, caplog):
    cfg, run_dir = composed
    assert cell.run(run_dir) and DataNow().change(cfg, run_dir) is None
    before = read_digest(run_dir)
    evaluate(run_dir, checkpoint="best", split="test")
    assert not caplog.text
    change_a_label(release)
    change = DataNow().change(cfg, run_dir)
    evaluate(run_dir, checkpoint="best", split="test")
    assert f"the data are not those of the run: digest {before}, now" in caplog.text
    write_config(run_dir, OmegaConf.merge(cfg, {"overwrite": True}))
    assert cell.run(run_dir)
    now = read_digest(run_dir)
    assert (
        now != before and change == f"finished before, on other data (digest {before}, now {now})"
    )
    assert DataNow().change(cfg, run_dir) is None


def test_another_source_with_the_same_rows_is_the_same(finished, release, tmp_path):
    cfg, run_dir = finished
    shutil.copytree(release.parent, tmp_path / "elsewhere")
    cfg.data.prepare.source_dir = str(tmp_path / "elsewhere")
    assert DataNow().change(cfg, run_dir) is None
    change_a_label(tmp_path / "elsewhere" / "listops-1000")
    assert read_digest(run_dir) in (DataNow().change(cfg, run_dir) or "")


def test_data_prepared_anew_with_other_content_are_named(finished):
    """As from a hub, whose rows may change under the same name."""
    cfg, run_dir = finished
    (folder,) = prepared_folders(run_dir)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"digest": "of others"}))
    assert "now of others" in (DataNow().change(cfg, run_dir) or "")


@pytest.mark.parametrize("source_stays", [True, False])
def test_a_finished_run_needs_no_data(finished, release, source_stays):
    """Nothing is prepared for it, and nothing said."""
    cfg, run_dir = finished
    shutil.rmtree(run_dir.parent / "data")
    if not source_stays:
        shutil.rmtree(release.parent)
    assert DataNow().change(cfg, run_dir) is None
    assert not prepared_folders(run_dir)


def test_the_data_of_many_runs_are_looked_for_once(finished, monkeypatch):
    cfg, run_dir = finished
    data_now = DataNow()
    assert data_now.change(cfg, run_dir) is None
    monkeypatch.setattr("macformer.runs.build.build_data", lambda cfg: 1 / 0)
    assert data_now.change(cfg, run_dir) is None
