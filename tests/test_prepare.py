"""The command that prepares tasks: what it writes, prints and returns."""

import re

import pytest

from macformer import prepare

SMALL = [
    "task.num_examples.train=11",
    "task.num_examples.validation=5",
    "task.num_examples.test=3",
]


@pytest.fixture
def run(tmp_path, capsys):
    """Call the command and return its exit code and what it printed."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = prepare.main([*arguments, f"paths.data_dir={tmp_path / 'data'}"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_task_is_prepared_and_described(run, tmp_path):
    code, out, err = run("task=listops_short", *SMALL)
    first, *lines = out.splitlines()
    assert code == 0 and err == ""
    assert re.fullmatch(rf"listops_short: {tmp_path}/data/listops/generate-[0-9a-f]{{8}}", first)
    assert [re.split(r"[:,]", line.strip())[:2] for line in lines] == [
        ["test", " 3 rows"],
        ["validation", " 5 rows"],
        ["train", " 11 rows"],
    ]
    assert all(re.search(r"classes [\d. ]+ %; sha256 [0-9a-f]{64}$", line) for line in lines)
    assert run("task=listops_short", *SMALL)[1] == out


def test_floors_are_described(run):
    many = ["task.num_examples={train: 120, validation: 5, test: 110}"]
    _, out, _ = run("task=listops_short", *many)
    lines = out.splitlines()[-4:]
    names = ("first_token", "first_token_and_arguments", "root_over_digits")
    for name, line in zip((*names, f"{names[-1]}_and_operators"), lines, strict=True):
        assert re.fullmatch(
            rf"  floor \d+\.\d %, {name}: the most frequent training label .*", line
        )


def test_the_length_of_expressions_is_the_task_s_own(run):
    short, cut, long = (
        run("task=listops_short", *SMALL, option)[1]
        for option in ("task.max_len=40", "max_seq_len=40", "task.max_len=50")
    )
    assert len({short, cut, long}) == 3
    assert cut == run("task=listops_short", *SMALL)[1]


def test_a_task_that_fails_does_not_stop_the_others(run):
    code, out, err = run("task=retrieval,listops_short", *SMALL)
    assert code == 1
    assert err.startswith("retrieval: no tsv_data/new_aan_pairs.train.tsv in ")
    assert err.count("\n") == 1
    assert out.startswith("listops_short: ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task=nonsense", "there is no task=nonsense; there are "),
        ("task.source=download", "task.source is 'download'; it must be one of generate"),
        ("task.sourse=generate", "there is no option task.sourse; in task did you mean source?"),
    ],
)
def test_a_wrong_option_is_named(run, override, message):
    arguments = [override] if override.startswith("task=") else ["task=listops", override]
    code, _, err = run(*arguments)
    assert code == 1
    assert message in err


@pytest.mark.parametrize(
    ("given", "missing"), [("path: logs.csv", "task.classes"), ("text: [a]", "task.path")]
)
def test_what_a_task_of_the_user_lacks_is_one_line(run, tmp_path, given, missing):
    (tmp_path / "task").mkdir()
    text = f"defaults: [_table, _self_]\nname: logs\nmax_len: 24\n{given}\n"
    (tmp_path / "task" / "logs.yaml").write_text(text)
    code, _, err = run("--config-dir", str(tmp_path), "task=logs")
    assert code == 1 and err.startswith("logs: ")
    assert err.endswith(f"Missing mandatory value: {missing}\n") and err.count("\n") == 1


def test_a_call_without_a_task_explains_itself(run):
    code, out, _ = run()
    assert code == 2
    assert "macformer-prepare task=listops" in out


def test_an_interruption_says_how_to_go_on(run, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "prepare", interrupt)
    assert run("task=listops") == (
        130,
        "",
        "listops: interrupted; the next call goes on from here\n",
    )
