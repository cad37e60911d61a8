"""What a command says of itself: for eighty columns, every choice named and no base of others."""

import sys
from importlib.resources import files

import pytest

from macformer.features.cli import main as features
from macformer.runs.help import describe_options
from macformer.studies.cli import main as study
from macformer.train import main as train


@pytest.mark.parametrize(
    ("main", "command", "groups", "options"),
    [
        (train, "macformer-train", ("task", "attention", "recipe"), ("max_steps", "seed")),
        (features, "macformer-features", (), ("checkpoint", "error")),
        (study, "macformer-study", ("study",), ("size", "render")),
    ],
)
def test_help_names_options_and_files_and_needs_no_choice(
    main, command, groups, options, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    main()
    text = capsys.readouterr().out
    words = text.split()
    for group in groups:
        folder = files("configs").joinpath(group)
        names = [path.name.removesuffix(".yaml") for path in folder.iterdir()]
        assert {name for name in names if name[0] not in "_."} - {"sampler"} <= set(words)
        assert not [name for name in names if name[0] == "_" and name in words]
    assert set(options) <= set(words)
    of_ours = [
        line for line in text.splitlines() if not line.startswith(("usage", "    macformer"))
    ]
    assert max(map(len, of_ours)) <= 100
    assert "identity" not in words and "protocol" not in words


def test_options_are_those_of_the_file_with_their_comments():
    text = " ".join(describe_options("benchmark").split())
    assert " rounds interleaved: each round times every method once (default: 7) " in text


def test_the_version_is_ours(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["macformer-train", "--version"])
    train()
    assert capsys.readouterr().out.startswith("macformer ")
