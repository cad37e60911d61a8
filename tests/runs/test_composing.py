"""Names and folders of what is composed, and what is refused, in one line, on the way there."""

import sys
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.utils import instantiate
from omegaconf import OmegaConf

from macformer import train
from macformer.runs.build import build_run
from macformer.runs.config import ConfigError, compose
from macformer.runs.hydra_bridge import GlobalHydra, use_hydra_config, without_command

LONG = "a_variant_with_a_name_that_says_everything_about_it_and_then_some_more_of_it"
VARIANT = "_target_: macformer.attention.SoftmaxAttention\n_partial_: true\ndropout: 0.0\n"


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    """Make a folder of a user's configurations, some of them mistyped."""
    folder = tmp_path_factory.mktemp("configs")
    files = {
        "attention/mine/elu": VARIANT,
        f"attention/mine/{LONG}": VARIANT,
        "attention/child": "defaults: [sofmax, _self_]\n",
        "attention/unclosed": "dropout: [0.0\n",
        "recipe/child": "defaults: [skyformr, _self_]\nname: child\n",
    }
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("name", ["elu", LONG])
def test_a_variant_in_a_sub_folder_is_one_folder_and_one_run_of_wandb(
    name, mine, tmp_path, monkeypatch
):
    cfg = compose(f"attention=mine/{name}", "logger=wandb", "sweep=s", config_dirs=[mine])
    run_dir = Path(cfg.paths.run_dir)
    assert run_dir.name == cfg.cell and run_dir.parent.name == "s"  # where its table is made
    assert cfg.choices.attention == f"mine/{name}"
    assert len(cfg.cell) <= 128 and cfg.cell.endswith(f"-{cfg.identity}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = OmegaConf.to_container(cfg.logger.wandb, resolve=True)
    options["save_dir"] = str(tmp_path)
    given = instantiate(options)._wandb_init
    assert given["id"] == given["name"] == cfg.cell  # accepted as it is
    assert not set("/\\#?%:") & set(given["id"])
    assert all(1 <= len(label) <= 64 for label in (*given["tags"], given["job_type"]))


def test_paths_are_absolute_where_the_user_called(tmp_path, monkeypatch):
    """So that a run finds its data from whatever folder it, or its evaluation, works in."""
    monkeypatch.delenv("MACFORMER_DATA", raising=False)
    monkeypatch.delenv("MACFORMER_OUTPUTS", raising=False)
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.to_container(compose("task=image", "task.source_dir=~/x"), resolve=True)
    assert cfg["data"]["data_dir"] == str(tmp_path / "data")
    assert cfg["paths"]["run_dir"].startswith(str(tmp_path / "outputs"))
    assert cfg["task"]["prepare"]["source_dir"] == str(Path.home() / "x")


def test_paths_do_not_follow_hydra_into_the_folder_of_a_run(tmp_path, monkeypatch):
    monkeypatch.delenv("MACFORMER_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with without_command(), initialize_config_module("configs", version_base="1.3"):
        cfg = hydra_compose("train", return_hydra_config=True)
        use_hydra_config(cfg)
        (tmp_path / "run").mkdir()
        monkeypatch.chdir(tmp_path / "run")  # as hydra.job.chdir=true does
        assert cfg.data.data_dir == str(tmp_path / "data")


@pytest.fixture
def complaint(monkeypatch, capsys):
    """Return the function from arguments of macformer-train to the one line that refuses them."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["macformer-train", *arguments])
        with pytest.raises(SystemExit) as stop:
            train.main()
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line.removeprefix("macformer-train: ")

    yield call
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("attention=sofmax",), ("attention=sofmax; did you mean softmax?", "rmfa_exp")),
        (("recipe=skyfrmer",), ("recipe=skyfrmer; did you mean skyformer?", "schoenbat_code")),
        (
            ("experiment=paper_tabel",),
            ("experiment=paper_tabel; did you mean paper_table?", "demo"),
        ),
        (("attention=child",), ("attention/child", "attention/sofmax")),
        (("recipe=child",), ("recipe/child", "recipe/skyformr")),
        (("attention=unclosed",), ("unclosed.yaml",)),
        (("experiment=demo", "attention.num_features=16"), ("attention.num_features",)),
        (("attntion=softmax",), ("attntion",)),
        (("max_stps=3",), ("max_stps",)),
    ],
)
def test_a_mistyped_name_is_one_line_that_names_it(options, words, mine, complaint):
    line = complaint("--config-dir", str(mine), *options)
    assert all(word in line for word in words), line


def test_a_folder_that_cannot_be_made_is_one_line_that_names_it(tmp_path, complaint):
    (tmp_path / "file").touch()
    line = complaint("recipe=smoke", f"paths.output_dir={tmp_path / 'file'}")
    assert "Not a directory" in line and str(tmp_path / "file") in line


@pytest.mark.parametrize("pooling", ["PaddedMeanPooling", "UnmaskedMeanPooling"])
def test_padding_that_a_pooling_counts_is_not_trimmed(pooling, make_run):
    target = f"recipe.default.pooling._target_=macformer.models.{pooling}"
    cfg, _ = make_run(target, "task.trim_batches=true")
    with pytest.raises(ConfigError, match=f"trim_batches=true cuts padding off, and {pooling}"):
        build_run(cfg)
