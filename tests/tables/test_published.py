from pathlib import Path

import pandas as pd
import pytest

import configs
from macformer.tables.published import difference_table, published_table, read_published
from macformer.tables.runs import TableError
from macformer.tables.summary import TASKS

LINE = "model,attention,ppsbn,recipes,task,metric,value,sd,source_document,table,note,code\n"


def test_every_value_names_its_document_and_table():
    published = read_published()
    assert len(published) > 400
    assert (published[["source_document", "table"]] != "").all(axis=None)
    assert published["value"].notna().all()


def test_no_value_stands_twice():
    key = ["model", "task", "metric", "source_document", "table"]
    assert not read_published().duplicated(key).any()


def test_tasks_and_rows_are_known():
    published = read_published()
    assert set(published["task"]) <= {*TASKS, "average"}
    rows = {path.stem for path in (Path(configs.__path__[0]) / "attention").glob("[!_]*.yaml")}
    assert set(published["attention"]) - {""} <= rows
    assert (published["attention"].eq("") == published["ppsbn"].eq("")).all()
    named = {recipe for recipes in published["recipes"] for recipe in recipes.split()}
    assert named < {path.stem for path in (Path(configs.__path__[0]) / "recipe").glob("*.yaml")}


def test_a_value_of_another_function_stands_beside_no_row():
    """Skyformer's softmax ran on lost brackets for 50,000 steps, which one recipe alone does."""
    published = read_published().set_index("model")
    by_source = published[published["source_document"].str.startswith("Skyformer")]
    assert set(by_source.loc["Self-Attention", "recipes"]) == {"skyformer_legacy"}
    assert set(by_source.loc["Performer", "attention"]) == {""}
    lra = published[published["source_document"].str.startswith("LRA, arXiv")]
    assert set(lra.loc["Local Attention", "attention"]) == {""}
    assert lra.loc["Local Attention", "code"].str.contains("stride").all()


def test_what_a_code_computed_instead_is_noted_once():
    table = published_table(read_published(), tasks=["listops", "text"])
    assert table is not None
    (note,) = [note for note in table.notes if note.startswith("LRA: Sinkhorn")]
    assert "sorting has no effect" in note


def test_nothing_is_claimed_for_macformer():
    assert not read_published()["model"].str.contains("macformer|rmfa|schoenbat", case=False).any()


def test_printed_averages_are_the_means_of_their_rows():
    published = read_published()
    accuracy = published[published["metric"] == "accuracy"]
    rows = accuracy.pivot(index=["source_document", "model"], columns="task", values="value")
    printed = rows.pop("average").dropna()
    assert len(printed) == 41
    difference = (rows.mean(axis=1) - printed).dropna().abs()
    # Some averages are printed with one decimal. One differs by more, and its note says so.
    assert list(difference[difference > 0.05].index.get_level_values("model")) == [
        "Sinkhorn Transformer"
    ]


def test_a_user_file_fills_in_cells(tmp_path):
    file = tmp_path / "published.csv"
    file.write_text(
        LINE + "Ours,rmfa_exp,with,skyformer,text,accuracy,61.5,0.4,A thesis,Table 3,,\n"
    )
    table = published_table(read_published(file), tasks=["text"])
    assert table is not None
    (row,) = table.rows
    assert [entry.text for entry in row.entries] == [
        "61.50 ± 0.40",
        "rmfa_exp",
        "A thesis, Table 3",
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (LINE + "Ours,,,,text,accuracy,61.5,,,Table 3,,\n", "line 2: a value needs its source"),
        ("model,task\nOurs,text\n", "lacks the columns attention"),
        (LINE + ",,,,text,accuracy,61.5,,A thesis,Table 3,,\n", "needs its .*model"),
        (LINE + "Ours,,,,text,accuracy,,,A thesis,Table 3,,\n", "needs its .*value"),
        (
            LINE + "\nOurs,,,,text,accuracy,high,,A thesis,Table 3,,\n",
            "line 3: value and sd are num",
        ),
        (LINE + "Ours,,,,text,accuracy,615,,A thesis,Table 3,,\n", "in %, from 0 to 100"),
        (LINE + 2 * "Ours,,,,text,accuracy,61.5,,A thesis,Table 3,,\n", "line 3: .*stands there"),
        ("", "cannot read"),
        (LINE + '"', "cannot read"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, content, complaint):
    file = tmp_path / "published.csv"
    file.write_text(content)
    with pytest.raises(TableError, match=complaint):
        read_published(file)


def test_no_table_where_nothing_is_published():
    assert published_table(read_published(), tasks=["listops_short"]) is None
    assert isinstance(read_published(), pd.DataFrame)


def test_ours_stand_against_the_published_value_of_their_protocol(tmp_path):
    """50 % beside 40 %, with the interval from 47 to 53."""
    file = tmp_path / "published.csv"
    lines = ["Ours,rfa,with,skyformer,text,accuracy,40,,A thesis,Table 3,,"]
    lines.append("Theirs,,,,text,accuracy,41,,A thesis,Table 3,,its code sorts nothing")
    lines.append("Ours,rfa,with,skyformer,listops,accuracy,30,,A thesis,Table 3,,")
    file.write_text(LINE + "\n".join(lines) + "\n")
    results = {
        "task": ["text", "text", "text"],
        "attention": ["rfa", "rfa", "softmax"],
        "ppsbn": ["with", "without", "with"],
        "recipe": "skyformer",
        "device": "laptop",
        "options": "",
        "own_options": "",
        "accuracy.best.test": [0.5, 0.9, 0.9],
        "low": [0.47, 0.8, 0.8],
        "high": [0.53, 0.95, 0.95],
    }
    summary, published = pd.DataFrame(results), read_published(file)
    table = difference_table(published, summary=summary, tasks=["listops", "text"])
    assert table is not None
    (row,) = table.rows
    assert row.label == "rfa + ppSBN"
    texts = [entry.text for entry in row.entries]
    assert texts == ["", "+10.0 (+7.0 to +13.0)", "A thesis: Ours"]
    other = summary.assign(recipe="lra_code")
    assert difference_table(published, summary=other, tasks=["text"]) is None
