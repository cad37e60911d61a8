"""The jobs that the options of a sweep stand for."""

import pytest
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from macformer.runs import plan

TASKS = ("listops", "text", "retrieval", "pathfinder", "image")


@pytest.fixture(scope="module")
def paper_jobs(compose_multirun):
    """Return the function from options to the jobs of the paper's table."""

    def jobs(*overrides: str) -> list[list[str]]:
        with initialize_config_module("configs", version_base="1.3"):
            named = any(override.startswith("experiment=") for override in overrides)
            config = compose_multirun(*([] if named else ["experiment=paper_table"]), *overrides)
            return plan.parse_jobs(config, GlobalHydra.instance().config_loader())

    return jobs


def test_the_paper_table_has_every_row_of_every_task_with_and_without_ppsbn(paper_jobs):
    jobs = paper_jobs("seed=0,1,2")
    assert len(jobs) == 5 * 8 * 2 * 3
    chosen = {tuple(job[:3]) for job in jobs}
    assert len(chosen) == 80
    for task in TASKS:
        assert (f"task={task}", "attention=rmfa_sqrt", "ppsbn=with") in chosen
    assert not any("kernelized" in part or "pathx" in part for job in jobs for part in job)


def test_the_tuned_table_gives_every_row_of_the_paper_s_the_same_rates(paper_jobs):
    jobs = paper_jobs("experiment=tuned_table")
    rates = {"0.0001", "0.0003", "0.001"}
    given: dict[tuple[str, ...], set[str]] = {}
    for task, attention, ppsbn, rate, *_ in jobs:
        given.setdefault((task, attention, ppsbn), set()).add(rate.removeprefix("learning_rate="))
    assert len(given) == 80 and set(map(frozenset, given.values())) == {frozenset(rates)}


def test_the_command_line_wins_over_the_experiment(paper_jobs):
    jobs = paper_jobs("task=text", "attention=rfa")
    assert {tuple(job[:2]) for job in jobs} == {("task=text", "attention=rfa")} and len(jobs) == 2


@pytest.fixture(scope="module")
def jobs_of(tmp_path_factory, compose_multirun):
    """Return the function from options to the values of attention or task in the jobs of a sweep.

    The user's folder has variants in a sub-folder, a base, and a sampler, which is no variant.
    """
    folder = tmp_path_factory.mktemp("mine")
    for name in ("elu", "deep/relu", "deep/_base", "sampler/ours"):
        (folder / "attention" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "attention" / f"{name}.yaml").write_text("_target_: a.B\n")

    def jobs(option: str) -> list[str]:
        with initialize_config_module("configs", version_base="1.3"):
            config = compose_multirun(f"hydra.searchpath=[file://{folder}]", option)
            found = plan.parse_jobs(config, GlobalHydra.instance().config_loader())
        key = option.partition("=")[0]
        return [part.partition("=")[2] for job in found for part in job if part.startswith(key)]

    return jobs


def test_a_glob_finds_the_variants_of_a_user_in_sub_folders_too(jobs_of):
    assert jobs_of("attention=glob(deep/*)") == ["deep/relu"]
    everything = jobs_of("attention=glob(*)")
    assert {"elu", "deep/relu", "softmax", "rmfa_exp"} <= set(everything)
    assert not [name for name in everything if "_base" in name or "sampler" in name]


def test_what_takes_days_or_is_an_oracle_is_swept_only_by_name(jobs_of):
    assert set(jobs_of("task=glob(*)")) >= set(TASKS)
    assert not {"pathx", "pathfinder64"} & set(jobs_of("task=glob(*)"))
    assert jobs_of("task=glob(pathx)") == jobs_of("task=pathx,pathx")[:1] == ["pathx"]
    assert not [name for name in jobs_of("attention=glob(*)") if name.startswith("kernelized")]
    assert "kernelized_exp" in jobs_of("attention=glob(kernelized_*)")
