"""What people type, what Hydra's grammar reads, and what a glob of a sweep finds."""

from dataclasses import fields
from unittest.mock import Mock

import hydra
import pytest
from hydra.conf import ConfigSourceInfo, RuntimeConf
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from macformer.runs.hydra_bridge import (
    Callback,
    ConfigLoader,
    Glob,
    GlobalHydra,
    HydraConfig,
    HydraContext,
    JobStatus,
    Override,
    OverridesParser,
    Plugins,
    RunMode,
    expand_glob,
    parse_overrides,
)
from macformer.runs.overrides import (
    flags_first,
    leave_to_cells,
    read_overrides,
    write_override,
)
from macformer.runs.plan import parse_jobs

ROWS = ("kernelized_exp", "rmfa_exp", "rmfa_inv", "softmax")


def test_the_internals_of_hydra_are_those_of_the_version_that_was_read():
    """After an upgrade: read macformer/runs/hydra_bridge.py beside it, then name the version."""
    assert hydra.__version__.startswith("1.3.")
    for owner, names in (
        (ConfigLoader, "load_sweep_config get_group_options"),
        (GlobalHydra.instance(), "clear config_loader hydra"),
        (HydraConfig.instance(), "initialized get set_config cfg"),
        (OverridesParser, "create parse_overrides"),
        (Glob, "filter"),
        (Override, "value is_sweep_override is_delete sweep_string_iterator get_key_element"),
        (Override, "get_value_element_as_str"),
        (Plugins, "instance instantiate_launcher"),
        (JobStatus, "FAILED"),
        (RunMode, "MULTIRUN"),
        (Callback, "on_multirun_start"),
    ):
        missing = [name for name in names.split() if not hasattr(owner, name)]
        assert not missing, f"{owner} has no {', '.join(missing)}"
    for owner, names in (
        (Override, "key_or_group input_line"),
        (Glob, "include exclude"),
        (HydraContext, "config_loader callbacks"),
        (JobReturn, "status _return_value"),
        (RuntimeConf, "cwd output_dir config_sources choices"),
        (ConfigSourceInfo, "path schema"),
    ):
        missing = set(names.split()) - {field.name for field in fields(owner)}
        assert not missing, f"{owner} has no {', '.join(missing)}"


def test_a_value_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert read_overrides(["task.source_dir=~/data"]) == ["task.source_dir=/home/me/data"]
    assert read_overrides(["seed=1", "~callbacks.best"]) == ["seed=1", "~callbacks.best"]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("task=text -m seed=0,1", "-m task=text seed=0,1"),
        ("a=1 --config-dir x=y ~logger b=2", "--config-dir x=y a=1 ~logger b=2"),
        ("+a=1 --config-dir=x=y --cfg job b=2", "--config-dir=x=y --cfg job +a=1 b=2"),
        ("-m a=1 b=2", "-m a=1 b=2"),
    ],
)
def test_flags_may_stand_among_options(typed, read):
    assert flags_first(typed.split()) == read.split()


@pytest.mark.parametrize(
    ("deletion", "other"),
    [
        ("~model", "model=NAME chooses another"),
        ("~attention=softmax", "attention=NAME"),
        ("~seed", "seed=... changes it"),
    ],
)
def test_what_every_run_has_cannot_be_left_out(deletion, other):
    with pytest.raises(ValueError, match=f"^{deletion.partition('=')[0]} would leave .*{other}"):
        read_overrides([deletion])


def test_what_the_grammar_refuses_is_shown_quoted():
    with pytest.raises(ValueError, match="must be quoted") as caught:
        read_overrides(["paths.data_dir=/a(b"])
    quoted = str(caught.value).rpartition(": ")[2].strip("'")
    assert parse_overrides([quoted])[0].value() == "/a(b"


@pytest.mark.parametrize(
    "value", [None, True, 3, 2.5, "null", "true", "a, b", 'say "x"', [1, None], {"a": [True]}]
)
def test_a_written_option_reads_as_the_same_value(value):
    assert parse_overrides([write_override("key", value)])[0].value() == value


def test_only_options_below_a_group_are_left_to_the_cells():
    options = ["seed=1", "attention.guard=null", "attention/sampler=code", "paths.data_dir=/a"]
    swept = [option.key_or_group for option in parsed(options) if option.is_sweep_override()]
    assert swept == ["attention.guard", "attention/sampler"]


def test_cells_read_the_values_that_were_given():
    options = ["a.b=null", "a.c=[1,null]", "a.d={e:null}", 'a.f="null"', 'a.g="x,y"', "a.h=nan"]
    config = {"sweeper": {"params": {}}, "overrides": {"task": leave_to_cells(options)}}
    loader = Mock(spec=ConfigLoader)  # which globs alone ask
    (job,) = parse_jobs(OmegaConf.create({"hydra": config}), loader)
    given, read = ([repr(o.value()) for o in parse_overrides(x)] for x in (options, job))
    assert given == read


def parsed(options: list[str]) -> list[Override]:
    return parse_overrides(leave_to_cells(options))


def globbed(pattern: str) -> list[str]:
    return expand_glob(parse_overrides([f"attention={pattern}"])[0], ROWS, ["kernelized_*"])


def test_a_glob_leaves_oracles_out_unless_they_are_named():
    assert globbed("glob(*)") == ["rmfa_exp", "rmfa_inv", "softmax"]
    assert globbed("glob(*exp)") == ["rmfa_exp"]
    assert globbed("glob(kernelized_*)") == ["kernelized_exp"]


@pytest.mark.parametrize("pattern", ["glob([softmax,rfma_*])", "glob(*,exclude=rfma_*)"])
def test_a_pattern_that_matches_nothing_is_named(pattern):
    with pytest.raises(ValueError, match=r"rfma_\* in attention=glob.* matches nothing"):
        globbed(pattern)
