"""Options in which runs differ: their simplest names, once each, and the best of them."""

from math import nan

import pandas as pd
import pytest

from macformer.tables import make_tables, settings
from macformer.tables.runs import TableError
from macformer.tables.settings import (
    find_options,
    label_options,
    name_runs,
    read_label,
    select_best,
    short_names,
)


def run(attention="softmax", *, seed=0, val=nan, **config) -> dict:
    facts = {"task": "listops", "ppsbn": "without", "recipe": "smoke", "device": "laptop"}
    config = {"seed": seed, "data": {"seed": seed}, **config}
    return {
        **facts,
        "attention": attention,
        "seed": seed,
        "status": "finished",
        "accuracy.best.val": val,
        "config": config,
    }


def names(*runs) -> list[tuple[str, str]]:
    labelled = label_options(find_options(pd.DataFrame(runs)))
    return list(labelled[["options", "own_options"]].itertuples(index=False, name=None))


def test_runs_that_differ_by_seed_alone_have_no_options():
    assert names(run(seed=0), run(seed=1)) == [("", "")] * 2


def test_an_option_that_stands_in_several_places_is_named_once_and_simply():
    found = names(
        run(max_steps=100, trainer={"max_steps": 100}, scheduler={"max_steps": 100}),
        run(max_steps=200, trainer={"max_steps": 200}, scheduler={"max_steps": 200}),
    )
    assert found == [("max_steps=100", ""), ("max_steps=200", "")]


def test_an_option_that_stands_again_within_a_row_is_named_once():
    found = names(
        *(
            run(row, learning_rate=rate, module={"optimizer": {"lr": rate}})
            for row in ("softmax", "rfa")
            for rate in (0.1, 0.2)
        )
    )
    assert found == [("learning_rate=0.1", ""), ("learning_rate=0.2", "")] * 2


def test_options_of_one_last_name_are_told_apart_by_more_of_their_keys():
    rates = [(1, 1), (1, 2), (2, 1)]
    runs = [run(mixer={"x": {"rate": a}}, optimizer={"rate": b}) for a, b in rates]
    assert names(*runs) == [(f"optimizer.rate={b}", f"x.rate={a}") for a, b in rates]
    kept, chosen = name_runs(
        pd.DataFrame(
            run(val=val, mixer={"x": {"rate": a}}, optimizer={"rate": b})
            for val, (a, b) in zip((0.2, 0.3, 0.4), rates, strict=True)
        ),
        best_of=["mixer.x.rate"],
    )
    assert kept["options"].tolist() == ["optimizer.rate=1", "optimizer.rate=2"]
    assert chosen["chosen"].tolist() == [{"x.rate": "2"}, {"x.rate": "1"}]


def test_a_key_that_another_one_ends_with_is_named_in_full():
    keys = ["rate", "pretrain.rate", "pretrain.model.width", "model.depth"]
    assert short_names(keys) == {
        "rate": "rate",
        "pretrain.rate": "pretrain.rate",
        "pretrain.model.width": "width",
        "model.depth": "depth",
    }
    assert short_names(["a.b.c", "b.c"]) == {"a.b.c": "a.b.c", "b.c": "b.c"}


def test_what_rows_differ_in_by_nature_is_no_option():
    softmax = run(attention="softmax", mixer={"dropout": 0.0})
    assert (
        names(softmax | {"config": {"attention": {"dropout": 0.0}}}, run("rfa", mixer={}))
        == [("", "")] * 2
    )


def test_pretraining_is_of_the_rows_that_begin_with_it():
    def begun(steps: int, row: str = "rfa+mlm") -> dict:
        return run(row, pretrain={"max_steps": steps, "identity": f"of {steps}"})

    scratch = run("rfa", pretrain=None)
    assert names(scratch, begun(100), begun(100, "softmax+mlm")) == [("", "")] * 3
    found = names(scratch, begun(100), begun(200))
    assert found == [("", ""), ("", "max_steps=100"), ("", "max_steps=200")]


def test_an_attention_s_parameter_sets_its_own_runs_apart():
    found = names(
        run("softmax"),
        *(run("rfa", mixer={"num_features": n}) for n in (16, 64)),
    )
    assert found == [("", ""), ("", "num_features=16"), ("", "num_features=64")]


def test_a_budget_that_only_one_row_had_shows_on_both():
    assert names(run("softmax", max_steps=100), run("rfa", max_steps=200)) == [
        ("max_steps=100", ""),
        ("max_steps=200", ""),
    ]


def test_what_the_configuration_calls_a_nuisance_is_no_option():
    nuisance = {"paths": ["paths", "data.*_dir"]}
    found = names(
        *(run(nuisance=nuisance, paths={"run": n}, data={"seed": 0, "raw_dir": n}) for n in "ab")
    )
    assert found == [("", "")] * 2


def test_a_run_without_configuration_has_no_options():
    found = names({**run(), "config": {}}, run(seed=1, max_steps=10), run(seed=2, max_steps=20))
    assert found == [("", ""), ("max_steps=10", ""), ("max_steps=20", "")]


def test_each_row_is_shown_at_its_best_setting_in_validation():
    rates = {("softmax", 1): (0.3, 0.5), ("softmax", 2): (0.6, 0.4), ("rfa", 1): (0.2, 0.2)}
    rates[("rfa", 2)] = (0.1, 0.1)
    runs = pd.DataFrame(
        run(row, seed=seed, val=val, learning_rate=rate)
        for (row, rate), vals in rates.items()
        for seed, val in enumerate(vals)
    )
    best, chosen = select_best(find_options(runs), ["learning_rate"])
    kept = {(r["attention"], r["config"]["learning_rate"]) for r in best.to_dict("records")}
    assert kept == {("softmax", 2), ("rfa", 1)} and len(best) == 4
    assert set(label_options(best)["options"]) == {""}
    softmax = chosen.set_index("attention").loc["softmax"]
    assert softmax["chosen"] == {"learning_rate": "2"} and softmax["num_settings"] == 2
    assert softmax["validation"] == pytest.approx(0.5)


def test_a_size_of_one_row_is_named_on_all_that_have_it():
    """Softmax has one size, and reads which one; a row without a configuration has none to name."""
    sizes = [run("rfa", model={"num_layers": n}) for n in (4, 12)]
    found = names(run(model={"num_layers": 4}), {**run("none"), "config": {}}, *sizes)
    assert found == [("", "num_layers=4"), ("", ""), ("", "num_layers=4"), ("", "num_layers=12")]


def test_a_text_of_options_can_be_read_again():
    options = {"lengths": "[16, 32]", "x.rate": "1e-3", "name": "", "text": "a=b, c"}
    (text,) = label_options(pd.DataFrame([{"options": options, "own_options": {}}]))["options"]
    assert read_label(text) == options and read_label("") == {}


def test_what_a_configuration_calls_no_option_is_looked_up_once_for_each_key(monkeypatch):
    calls = []
    monkeypatch.setattr(settings, "fnmatchcase", lambda *names: calls.append(names) or False)
    config = {"max_steps": 1, "nuisance": {"only here": ["no_such_key"]}}
    settings.flatten(config)
    first = len(calls)
    for steps in (2, 3):
        assert settings.flatten({**config, "max_steps": steps})["max_steps"] == str(steps)
    assert len(calls) == first > 0


def test_a_setting_with_a_seed_missing_does_not_compete():
    scores = {(0.001, 0): 0.4, (0.001, 1): 0.4, (0.003, 0): 0.9, (0.003, 1): nan}
    runs = pd.DataFrame(run(seed=s, val=v, learning_rate=r) for (r, s), v in scores.items())
    best, chosen = select_best(find_options(runs), ["learning_rate"])
    assert {config["learning_rate"] for config in best["config"]} == {0.001}
    assert chosen.loc[0, ["num_settings", "num_short"]].tolist() == [1, 1]


def test_what_differs_in_one_task_is_named_in_all(write_run, sweep):
    """A single run at another rate in one task leaves the rows of both tasks one row each."""
    for task in ("listops", "text"):
        for row in ("softmax", "rfa"):
            write_run(task=task, attention=row, config={"learning_rate": 0.1})
    write_run(task="text", attention="rfa", config={"learning_rate": 0.3}, name="another")
    text = make_tables([sweep])[0].read_text()
    first = next(line for line in text.splitlines() if line.startswith("| rfa"))
    assert first.startswith("| rfa (learning_rate=0.1) | 40.00 | 40.00 | 40.00 |")
    assert "No finished softmax without ppSBN to relate to: Text, learning_rate=0.3." in text


def test_a_setting_that_no_row_tried_twice_is_shown_as_chosen():
    """A search of two trials: each row has one setting, and they differ."""
    config = {"best_of": ["learning_rate", "attention.num_features"]}
    kept, chosen = name_runs(
        pd.DataFrame(
            run("rfa", val=0.2)
            | {"ppsbn": ppsbn}
            | {"config": {**config, "learning_rate": rate, "attention": {"num_features": n}}}
            for ppsbn, rate, n in (("with", 0.1, 64), ("with_batch", 0.2, 128))
        )
    )
    assert [sorted(options.items()) for options in chosen["chosen"]] == [
        [("learning_rate", "0.1"), ("num_features", "64")],
        [("learning_rate", "0.2"), ("num_features", "128")],
    ]
    assert set(kept["options"]) == set(kept["own_options"]) == {""}


def test_what_is_tuned_is_named_though_another_option_varies_alike():
    """Rows padded to their greatest length, and trials of which each has values of its own."""
    pairs = [(0.1, 512, 0.3), (0.2, 1024, 0.5), (0.3, 2048, 0.4)]
    runs = pd.DataFrame(
        run(val=val, max_seq_len=length, padded_len=length, encoder={"dropout": rate})
        for rate, length, val in pairs
    )
    _, chosen = name_runs(runs, best_of=["max_seq_len", "encoder.dropout"])
    assert chosen.loc[0, "chosen"] == {"max_seq_len": "1024", "dropout": "0.2"}
    best, _ = select_best(find_options(runs, tuned=["max_seq_len"]), ["max_seq_len"])
    assert [config["padded_len"] for config in best["config"]] == [1024]


def test_a_setting_with_a_failed_seed_does_not_compete():
    """Its validation may have been recorded before it failed."""
    runs = pd.DataFrame(
        {**run(seed=seed, val=val, learning_rate=rate), "status": status}
        for rate, seed, val, status in (
            (0.001, 0, 0.4, "finished"),
            (0.001, 1, 0.4, "finished"),
            (0.003, 0, 0.9, "finished"),
            (0.003, 1, 0.9, "failed"),
        )
    )
    best, _ = select_best(find_options(runs), ["learning_rate"])
    assert {config["learning_rate"] for config in best["config"]} == {0.001}


def test_a_row_without_a_finished_run_is_one_row():
    """Each seed of it once: a row that is there twice is refused, and with it every table."""
    scores = {"softmax": (0.4, 0.5), "rfa": (nan, nan)}
    runs = pd.DataFrame(
        run(row, seed=seed, val=val, learning_rate=rate)
        for row, vals in scores.items()
        for rate, val in zip((0.001, 0.003), vals, strict=True)
        for seed in (0, 1)
    )
    best, chosen = select_best(find_options(runs), ["learning_rate"])
    assert set(label_options(best)["options"]) == {""}
    assert best[best["attention"] == "rfa"]["seed"].tolist() == [0, 1]
    assert chosen["attention"].tolist() == ["softmax"]


def test_runs_that_were_tuned_are_shown_at_their_best_without_being_asked():
    tuned = {"best_of": ["attention.num_features", "ppsbn"]}
    runs = pd.DataFrame(run(val=n / 100, mixer={"num_features": n}, **tuned) for n in (16, 8, 128))
    best, chosen = name_runs(runs)
    assert len(best) == 1 and set(best["own_options"]) == {""}
    assert chosen.loc[0, "tried"] == {"num_features": ["8", "16", "128"]}  # as numbers
    every, none = name_runs(runs, best_of=[])
    assert len(set(every["own_options"])) == 3 and none.empty
    asked, _ = name_runs(runs, best_of=["attention.num_features"])
    assert len(asked) == 1


def test_one_finished_setting_of_a_tuned_sweep_is_a_table_already():
    best, chosen = name_runs(pd.DataFrame([run(val=0.5, best_of=["learning_rate"])]))
    assert len(best) == 1 and chosen.empty


def test_an_option_in_which_no_run_differs_is_named():
    runs = find_options(pd.DataFrame([run(max_steps=1), run(seed=1, max_steps=2)]))
    with pytest.raises(TableError, match="differ in learning_rate; they differ in max_steps"):
        select_best(runs, ["learning_rate"])
