"""Values and names that the command line gives to parts, and that no part can have."""

import pytest
from omegaconf.errors import OmegaConfBaseException

from macformer.runs.config import ConfigError, compose

SMOKE = ("task=listops_short", "recipe=smoke", "attention=rmfa_exp")


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("attention.num_features=x", "attention.num_features is x; it must be a whole number"),
        ("attention.num_features=1e2", "it must be a whole number, as 128 in its file"),
        ("attention.num_features=null", "attention.num_features is null; it must be a whole"),
        ("attention.guard=wide", "attention.guard is wide; it must be a number, as 0.5 in"),
        ("attention.guard=nan", "attention.guard is nan; it must be a number"),
        ("task.num_examples.train=1.5", "task.num_examples.train is 1.5; it must be a whole"),
        ("task.num_examples={test: no}", "task.num_examples.test is no; it must be a whole"),
        ("task.num_examples=6000", "task.num_examples is 6000; it must be a mapping"),
        ("task.brackets={a: 1}", "it must be text, as keep in its file"),
        ("task.trim_batches=often", "task.trim_batches is often; it must be true or false"),
        ("callbacks.throughput=3", "callbacks.throughput is 3; it must be a mapping"),
        ("callbacks.best.monitor=val/f1", "val/f1; it must be val/accuracy or val/loss"),
        (
            "callbacks.best.monitor=val/macro_f1",
            "val/macro_f1; it must be val/accuracy or val/loss",
        ),
        ("callbacks.best.mode=least", "callbacks.best.mode is least; it must be max or min"),
        ("nuisance=3", "nuisance is 3; it must be a mapping"),
        ("identity=mine", "identity is computed, and no option"),
        ("cell=mine", "cell is computed, and no option"),
        ("+trainer.foo=1", "trainer.foo is 1; pytorch_lightning.Trainer has no foo, but"),
        ("+attention.foo=1", "macformer.attention.RMFA has no foo, but num_heads"),
        ("+callbacks.best.foo=1", "BestCheckpoint has no foo, but dirpath, monitor, mode"),
        ("++task.prepare.foo=1", "tasks.listops.prepare has no foo, but data_dir, source"),
        ("+max_step=10", "max_step is 10; there is no such option, and nothing reads it"),
        ("max_step=10", "there is no option max_step; did you mean max_steps?"),
        (
            "optimizer.weight_decay=0.1",
            "'optimizer.weight_decay', which the recipe gives; change it there",
        ),
        ("paths.data_dir=null", "paths.data_dir is null; it must be a folder"),
        ("paths.output_dir=''", "paths.output_dir is ; it must be a folder"),
        ("attention=7", "attention is 7; it must be the name of a file in attention/"),
        ("optimizer=null", "optimizer is null; it must be the name of a file in optimizer/"),
    ],
)
def test_what_no_part_can_have_is_one_line(option, fault):
    with pytest.raises((ConfigError, ValueError)) as error:
        compose(*SMOKE, option)
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_what_parts_can_have_is_taken():
    options = ("attention.num_features=16", "attention.guard=null", "task.num_examples={test: 7}")
    added = ("+trainer.max_time=00:00:10:00", "+width=9", "attention.assumed_dot=${width}")
    mine = "+callbacks.mine={_target_: pytorch_lightning.callbacks.Timer, duration: 1}"
    place = "callbacks.heartbeat.run_dir=${paths.run_dir}/beats"
    cfg = compose(*SMOKE, *options, *added, mine, place, "+nuisance.mine=[callbacks.mine]")
    assert cfg.callbacks.heartbeat.run_dir == f"{cfg.paths.run_dir}/beats"
    assert cfg.attention.num_features == 16 and cfg.attention.guard is None
    assert cfg.task.num_examples == {"train": 6000, "validation": 500, "test": 7}
    assert cfg.attention.assumed_dot == 9 and cfg.callbacks.mine.duration == 1


def test_a_path_is_text_or_a_number_that_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = compose(*SMOKE, "task.source_dir=2024")
    assert cfg.task.prepare.source_dir == str(tmp_path / "2024")
    with pytest.raises(OmegaConfBaseException, match="stands where a path must"):
        _ = compose(*SMOKE, "task.source_dir=[1]").paths.run_dir


def test_what_a_file_takes_from_elsewhere_is_an_example_too():
    with pytest.raises(
        ConfigError, match=r"module\.log_interval is few; it must be a whole number"
    ):
        compose(*SMOKE, "module.log_interval=few")


@pytest.mark.parametrize(
    ("base", "fault"),
    [
        ("/attention/softmax", r"attention\.attention; .* has /attention/NAME@_here_"),
        ("/attention@_here_: softmax", "leads to itself; .* /GROUP/NAME@_here_"),
    ],
)
def test_a_base_at_the_wrong_place_is_named_with_the_right_one(tmp_path, base, fault):
    folder = tmp_path / "attention" / "mine"
    folder.mkdir(parents=True)
    for name, entry in (("wrong", base), ("right", "/attention/softmax@_here_")):
        (folder / f"{name}.yaml").write_text(f"defaults:\n  - {entry}\n  - _self_\ndropout: 0.5\n")
    with pytest.raises(ConfigError, match=fault):
        compose("attention=mine/wrong", config_dirs=[tmp_path])
    assert compose("attention=mine/right", config_dirs=[tmp_path]).attention.dropout == 0.5


def test_a_mistyped_key_of_a_task_is_named_with_the_one_that_is_near(tmp_path):
    (tmp_path / "task").mkdir()
    task = "defaults: [listops_short, _self_]\nname: mine\nmax_lne: 3\nnote: x\n"
    (tmp_path / "task" / "mine.yaml").write_text(task)
    fault = "^nothing reads task.max_lne; it has a key max_len; nothing reads task.note$"
    with pytest.raises(ConfigError, match=fault):
        compose("task=mine", config_dirs=[tmp_path])
