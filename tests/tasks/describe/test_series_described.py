"""A description of series holds what their training steps are like, and says what is wrong."""

import re
from unittest.mock import Mock

import numpy as np
import pytest
from omegaconf import OmegaConf

from tasks.describe import cli


def test_series_are_described_with_the_statistics_of_their_training_steps(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(50, 4, (200, 24, 2)).astype(np.float32)
    x[:, 3, 1] = np.nan
    np.savez(tmp_path / "machines.npz", x=x, y=np.arange(200) % 10 == 0)
    call = [str(tmp_path / "machines.npz"), "--patch", "4", "--missing", "indicator"]
    assert cli.main(call) == 0
    out, err = capsys.readouterr()
    task = OmegaConf.create(out)
    assert task.classes == ["False", "True"] and task.class_counts == [144, 16]
    assert (task.max_len, task.patch, task.missing) == (6, 4, "indicator")
    assert task.channel_mean == pytest.approx([50, 50], abs=0.5)
    assert task.channel_std == pytest.approx([4, 4], abs=0.3)
    assert "classes are unequal: False 90.0 %" in err
    assert "4.2 % of the values of channel 1 are missing and marked" in err


def test_series_have_a_page_too(tmp_path, capsys):
    x = np.random.default_rng(0).normal(50, 4, (60, 24, 2)).astype(np.float32)
    x[:, :6, 1] = np.nan
    np.savez(tmp_path / "machines.npz", x=x, y=np.arange(60) % 2)
    page = tmp_path / "page.html"
    call = [str(tmp_path / "machines.npz"), "--missing", "indicator", "--html", str(page)]
    assert cli.main(call) == 0
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 2 and "<td>0</td><td>24</td><td>3</td><td>3</td>" in html
    assert "<td>25.0 %</td>" in html and capsys.readouterr().out.replace('"', "&quot;") in html


def test_archives_in_a_folder_are_series_as_well(tmp_path, capsys):
    rng = np.random.default_rng(0)
    folder = tmp_path / "machines"
    folder.mkdir()
    for i in range(2):
        np.savez(folder / f"{i}.npz", x=rng.normal(size=(30, 8)), y=np.arange(30) % 2)
    assert cli.main([str(folder)]) == 0
    assert OmegaConf.create(capsys.readouterr().out).class_counts == [24, 24]


def test_a_series_that_stands_in_two_splits_is_told(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, first in (("train", 0), ("test", 30)):
        x = np.stack([np.random.default_rng(i).normal(size=24) for i in range(first, first + 40)])
        np.savez(tmp_path / f"{name}.npz", x=x, y=rng.permutation(40) % 2)
    call = [str(tmp_path / "train.npz"), "--test", str(tmp_path / "test.npz")]
    assert cli.main([*call, "--validation-fraction", "0.05", "--name", "twice"]) == 0
    err = capsys.readouterr().err
    told = re.search(r"(\d+) rows of test are of a series that training has, too", err)
    assert told and 8 <= int(told[1]) <= 10  # ten, but for those that are held out
    assert "rows, too few to choose a checkpoint" in err and "the test split has 40 rows" in err


def test_floors_can_be_left_out_of_series(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tasks.series.task.add_floors", Mock(side_effect=AssertionError))
    x = np.random.default_rng(0).normal(size=(60, 8))
    np.savez(tmp_path / "machines.npz", x=x, y=np.arange(60) % 2)
    assert cli.main([str(tmp_path / "machines.npz"), "--no-floors"]) == 0
    assert OmegaConf.create(capsys.readouterr().out).class_counts == [24, 24]


def test_a_group_that_makes_a_split_far_larger_than_asked_for_is_told(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(60, 8))
    np.savez(tmp_path / "machines.npz", x=x, y=np.arange(60) % 2, site=np.arange(60) // 20)
    assert cli.main([str(tmp_path / "machines.npz"), "--group", "site", "--no-floors"]) == 0
    assert "the test split has 33.3 % of the rows, not the 10.0 % asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "target"], r"label is 'target'; in \.npz files it is y"),
        (["--keep", "both"], r"--keep is 'both'; it must be one of head, tail"),
    ],
)
def test_what_an_archive_has_no_use_for_gives_one_line(tmp_path, capsys, options, message):
    np.savez(tmp_path / "machines.npz", x=np.zeros((60, 8)), y=np.arange(60) % 2)
    assert cli.main([str(tmp_path / "machines.npz"), "--no-floors", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and re.search(message, err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--series", "machine"], r"say which column is the label \(--label\)"),
        (["--series", "machine", "--label", "state"], r"channels names no column; say which hold"),
        (["--series", "machine", "--tokens", "characters"], r"--tokens is of tables of texts, not"),
        (["--series", "machine", "--text", "temp"], r"--text is of tables of texts, not of series"),
    ],
)
def test_a_mistake_about_series_gives_one_line(tmp_path, capsys, options, message):
    (tmp_path / "a.csv").write_text("machine,temp,state\nm,1,ok\n")
    assert cli.main([str(tmp_path / "a.csv"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and re.search(message, err)
