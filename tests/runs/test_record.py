"""The files of a run: whole or named, and at home in whatever folder they lie."""

import json
import logging
import shutil
import subprocess
from threading import Thread

import numpy as np
import pytest
from omegaconf import OmegaConf

from macformer import provenance, record
from macformer.provenance import package_version, source_commit

RECORD = {"schema": 1, "status": "interrupted", "reason": None}


@pytest.mark.parametrize("text", ["", '{"schema": 1, "sta', "[]", "{}", '{"schema": 1}'])
def test_a_damaged_record_is_named_and_taken_for_none(tmp_path, caplog, text):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert record.read_metrics(tmp_path) is None
    assert str(path) in caplog.text
    with pytest.raises(record.DamagedRecord, match=r"metrics\.json"):
        record.read_record(path)


def test_paths_are_those_of_the_folder_where_it_is_read(make_run, tmp_path):
    cfg, run_dir = make_run()
    assert cfg.callbacks.best.dirpath == f"{run_dir}/checkpoints"
    shutil.move(run_dir, tmp_path / "moved")
    moved = record.read_config(tmp_path / "moved")
    assert moved.callbacks.best.dirpath == str(tmp_path / "moved" / "checkpoints")
    assert moved.paths.data_dir == cfg.paths.data_dir
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    assert record.read_config(tmp_path / "link").paths.run_dir == str(tmp_path / "link")


def test_a_truncated_configuration_has_a_copy(make_run):
    cfg, run_dir = make_run()
    path = run_dir / "config.yaml"
    whole = path.read_text()
    for num_lines in (0, 1, len(whole.splitlines()) * 2 // 3):
        path.write_text("".join(whole.splitlines(keepends=True)[:num_lines]))
        (run_dir / "metrics.json").unlink(missing_ok=True)
        with pytest.raises(record.DamagedRecord, match=r"config\.yaml is damaged"):
            record.read_config(run_dir)
        record.write_metrics(run_dir, record.describe_run(cfg))
        assert record.read_config(run_dir) == cfg


def test_predictions_come_back(tmp_path):
    assert record.read_predictions(tmp_path) is None
    answers = np.array([0, 2, 1])
    record.write_predictions(tmp_path, {"row": np.arange(3), "label": answers})
    with pytest.raises(record.DamagedRecord, match=r"predictions\.npz lacks best_prediction$"):
        record.read_predictions(tmp_path)
    arrays = {"row": np.arange(3), "label": answers, "best_prediction": answers}
    record.write_predictions(tmp_path, arrays)
    found = record.read_predictions(tmp_path)
    assert found is not None and found.keys() == arrays.keys()
    assert all((found[name] == arrays[name]).all() for name in arrays)
    path = tmp_path / "predictions.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(record.DamagedRecord, match=r"predictions\.npz is damaged"):
        record.read_predictions(tmp_path)


def test_a_package_that_is_only_on_the_path_has_no_version(monkeypatch):
    assert package_version("macformer-that-nobody-installed") is None
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "macformer-that-nobody-installed"))
    versions = provenance.versions()
    assert versions["macformer_that_nobody_installed"] is None and versions["torch"]


def test_the_commit_of_another_repository_is_not_ours(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    (tmp_path / "macformer").mkdir()
    (tmp_path / "macformer" / "a.py").touch()
    installed = tmp_path / ".venv" / "site-packages" / "macformer"
    installed.mkdir(parents=True)
    git("init", "-q")
    git("add", "macformer/a.py")
    git("commit", "-q", "-m", "first")
    assert source_commit(installed) is None
    assert len(source_commit(tmp_path / "macformer") or "") >= 7
    assert json.dumps(source_commit(tmp_path / "macformer")).isascii()


def test_two_processes_may_write_one_configuration(tmp_path):
    """Cells that begin with one pretraining do so at once; the last to end is what stands there."""
    first, second = (OmegaConf.create({"seed": seed}) for seed in (0, 1))
    write = OmegaConf.to_yaml

    def meanwhile(cfg, **options):
        monkeypatch.setattr(OmegaConf, "to_yaml", write)
        thread = Thread(target=record.write_config, args=(tmp_path, second))
        thread.start()
        thread.join()
        return write(cfg, **options)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(OmegaConf, "to_yaml", meanwhile)
        record.write_config(tmp_path, first)
    assert OmegaConf.load(tmp_path / "config.yaml").seed == 0
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
