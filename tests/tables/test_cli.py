import csv

import pytest

from macformer.tables import main, make_tables


def test_the_command_writes_and_names_its_files(write_run, sweep, capsys):
    write_run()
    write_run(attention="rmfa_exp", ppsbn="with")
    assert main([str(sweep)]) == 0
    printed = capsys.readouterr().out
    assert "rmfa_exp + ppSBN" in printed
    written = {line.removeprefix("wrote ") for line in printed.splitlines() if "wrote" in line}
    expected = [
        "table.md",
        "table.tex",
        "table.csv",
        "runs.csv",
        "front_speed.png",
        "front_speed.svg",
    ]
    assert written == {str(sweep / name) for name in [*expected, "index.html"]}
    assert all((sweep / name).stat().st_size for name in expected)


def test_csv_keeps_full_precision_and_leaves_blanks_blank(write_run, sweep):
    write_run(test=1 / 3)
    write_run(attention="rfa", test=None)
    assert main([str(sweep)]) == 0
    with (sweep / "table.csv").open() as file:
        rows = {row["attention"]: row for row in csv.DictReader(file)}
    assert float(rows["softmax"]["accuracy.best.test"]) == 1 / 3
    assert rows["rfa"]["accuracy.best.test"] == ""


def test_what_became_of_settings_that_were_not_chosen_is_listed(write_run, write_stopped, sweep):
    """One that diverged beside the one chosen; and of a row that has none, both."""

    def setting(attention: str, rate: float) -> dict:
        config = {"seed": 0, "learning_rate": rate, "best_of": ["learning_rate"]}
        return {"attention": attention, "name": str(rate), "config": config}

    write_run(**setting("softmax", 0.1))
    write_run(**setting("softmax", 0.2))
    write_stopped(**setting("softmax", 9.0), reason="the loss is nan")
    for rate in (0.1, 9.0):
        write_stopped(**setting("rfa", rate), reason=f"stopped at {rate}")
    make_tables([sweep])
    with (sweep / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    listed = [(row["attention"], row["options"], row["status"]) for row in rows]
    assert [row["chosen"] for row in rows] == ["True", "True", "False", "False", "False"]
    assert listed == [
        ("rfa", "", "failed"),
        ("softmax", "", "finished"),
        ("rfa", "learning_rate=9.0", "failed"),
        ("softmax", "learning_rate=0.2", "finished"),
        ("softmax", "learning_rate=9.0", "failed"),
    ]
    for name in ("table.md", "index.html"):
        text = (sweep / name).read_text()
        assert "failed: ListOps, softmax (learning_rate=9.0), seed 0: the loss is nan" in text
        assert "failed: ListOps, rfa (learning_rate=9.0), seed 0: stopped at 9.0" in text
        assert "finished: " not in text  # a choice table says of how many settings one is
    runs = text.split('aria-label="Runs"')[1]
    assert runs.count('<td class="text failed">') == 3


def test_several_folders_write_where_they_meet(write_run, sweep):
    folders = [write_run(), write_run(attention="rfa")]
    assert main([str(folder) for folder in folders]) == 0
    assert (sweep / "listops" / "table.md").is_file()


def test_published_results_of_another_form_give_one_line(write_run, sweep, tmp_path, capsys):
    write_run()
    (tmp_path / "published.csv").write_text("a,b\n1,2\n3,4,5\n")  # of which pandas says two lines
    assert main([str(sweep), "--published", str(tmp_path / "published.csv")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_control_characters_of_a_record_are_shown_and_not_obeyed(
    write_run, write_stopped, sweep, capsys
):
    write_run(attention="rfa\x1b[31m", config={"seed": 0, "x": "[bold]"})
    write_stopped(
        attention="none", reason="bad\x1b]0;title\x07\nline", config={"seed": 0, "x": "1"}
    )
    assert main([str(sweep)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x07" not in printed
    assert "rfa\\x1b[31m (x=[bold])" in printed and "bad\\x1b]0;title\\x07\\nline" in printed
    for name in ("table.md", "table.tex"):
        assert "\x1b" not in (sweep / name).read_text()


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], [".", "--published", "nowhere.csv"]])
def test_a_mistake_gives_one_line_and_exit_code_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert len(streams.err.splitlines()) == 1
    assert streams.err.startswith("macformer-tables: ")
    assert list(tmp_path.iterdir()) == []


def test_mixed_recipes_are_refused_until_allowed(write_run, sweep, capsys):
    write_run()
    write_run(recipe="lra_paper")
    assert main([str(sweep)]) == 2
    assert "--allow-mixed" in capsys.readouterr().err
    assert main([str(sweep), "--allow-mixed"]) == 0
    assert "softmax, lra_paper" in (sweep / "table.md").read_text()


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_table_of_one_task_keeps_a_line_for_each_row(write_run, sweep, capsys, num_seeds):
    for attention in ("softmax", "uniform", "rmfa_exp"):
        for seed in range(num_seeds):
            write_run(attention=attention, ppsbn="with", seed=seed)
    main([str(sweep)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:6])) <= 120
    assert [line.split()[0] for line in lines[3:7]] == [
        "softmax",
        "uniform",
        "rmfa_exp",
        "majority",
    ]
