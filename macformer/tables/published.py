"""Published results, from the one file that holds them: `published.csv`.

Each value names its document (a short name, a comma, where it is found) and table. `attention`,
`ppsbn` and `recipes`, several of them apart by spaces, name the rows of ours that it stands beside,
if any: those of its own protocol, as far as a recipe follows it, whose code computed what they
compute. `code` says what a published code computed in place of what the model's name says, or
beside it; a value of another function stands beside no row. Accuracies are in %. A value that
could not be quoted has no line; to fill one in, as for Macformer's own tables, add a line with its
source, here or in a copy that `macformer-tables --published` names.
"""

from importlib.resources import as_file, files
from math import inf, isnan, nan
from pathlib import Path

import pandas as pd

from macformer.tables.entries import Numbers, by_row
from macformer.tables.layout import Entry, Row, Table, percent, task_title
from macformer.tables.runs import TableError

BESIDE = ["attention", "ppsbn", "recipes"]
COLUMNS = ["model", *BESIDE, "task", "metric", "value", "sd"]
SOURCE = ["source_document", "table", "note", "code"]
NUMBERS = ["value", "sd"]
NEEDED = ["source_document", "table", "model", "task", "metric", "value"]
MODEL = ["source_document", "table", "model", *BESIDE]  # one row of the published table


def read_published(file: Path | None = None) -> pd.DataFrame:
    """Read the reference file, ours unless another is named.

    Raises:
        TableError: If it cannot be read, or a value is none, stands twice or without its source.
    """
    with as_file(files("macformer.tables") / "published.csv") as packaged:
        file = file or packaged
        try:
            published = pd.read_csv(file, dtype=str, index_col=False, skip_blank_lines=False)
        except (OSError, ValueError) as error:
            raise TableError(f"cannot read {file}: {error}") from error
    missing = [column for column in [*COLUMNS, *SOURCE] if column not in published]
    if missing:
        raise TableError(f"{file} lacks the columns {', '.join(missing)}")
    published = published.dropna(how="all").fillna(dict.fromkeys([*BESIDE, "note", "code"], ""))
    numbers = published[NUMBERS].apply(pd.to_numeric, errors="coerce").astype(float)
    no_number = ~numbers.abs().lt(inf) & published[NUMBERS].notna()
    no_share = published["metric"].eq("accuracy") & ~numbers["value"].between(0, 100)
    faults: list[tuple[pd.Series, str]] = [
        (published[NEEDED].isna().any(axis=1), f"a value needs its {', '.join(NEEDED)}"),
        (no_number.any(axis=1), f"{' and '.join(NUMBERS)} are numbers"),
        (no_share, "an accuracy is in %, from 0 to 100"),
        (published.duplicated([*MODEL, "task", "metric"]), "this value stands there before"),
    ]
    for wrong, complaint in faults:
        if wrong.any():
            line = wrong[wrong].index[0] + 2  # after the header, counted from 1
            raise TableError(f"{file}, line {line}: {complaint}")
    published[NUMBERS] = numbers
    return published


def published_beside(
    published: pd.DataFrame, *, summary: pd.DataFrame, tasks: list[str]
) -> list[tuple[str, dict[str, float]]]:
    """Pick the published accuracies that stand beside one of our rows."""
    ours = set(summary[["attention", "ppsbn", "recipe"]].itertuples(index=False, name=None))
    return [
        (
            f"{entry['source_document'].partition(',')[0]}: {entry['model']}",
            {task: entry[task] for task in tasks},
        )
        for entry in _accuracies(published, tasks).to_dict("records")
        if any((entry["attention"], entry["ppsbn"], r) in ours for r in entry["recipes"].split())
    ]


def difference_table(
    published: pd.DataFrame, *, summary: pd.DataFrame, tasks: list[str]
) -> Table | None:
    """Set our accuracies against the published ones that they stand beside; None without any."""
    rows = []
    for entry in _accuracies(published, tasks).to_dict("records"):
        ours = summary[
            summary["attention"].eq(entry["attention"])
            & summary["ppsbn"].eq(entry["ppsbn"])
            & summary["recipe"].isin(entry["recipes"].split())
        ]
        for label, results in by_row(ours):
            texts = [_difference(results.get(task), entry[task]) for task in tasks]
            if any(texts):
                source = f"{entry['source_document'].partition(',')[0]}: {entry['model']}"
                rows.append(Row(label, [*map(Entry, texts), Entry(source)]))
    if not rows:
        return None
    return Table(
        title="Ours minus published",
        columns=[*(("points of test accuracy", task_title(task)) for task in tasks), ("", "minus")],
        rows=rows,
        caption="Under the source's protocol, as far as our recipe follows it"
        + (
            "; in brackets the 95 % interval of our accuracy, less the published value, whose own "
            "interval is not known."
            if any(" (" in entry.text for row in rows for entry in row.entries[:-1])
            else "."
        ),
        notes=["A value whose code computed another function stands in no difference."],
        num_text_columns=1,
    )


def _difference(result: Numbers | None, theirs: float) -> str:
    """Show how many points we are above a published accuracy, and between which two numbers."""
    if result is None or isnan(theirs) or isnan(result["accuracy.best.test"]):
        return ""
    text = f"{100 * (result['accuracy.best.test'] - theirs):+.1f}"
    low, high = (100 * (result.get(name, nan) - theirs) for name in ("low", "high"))
    return text if isnan(low) else f"{text} ({low:+.1f} to {high:+.1f})"


def published_table(published: pd.DataFrame, *, tasks: list[str]) -> Table | None:
    """Show every published accuracy of these tasks, or nothing where there is none."""
    known = _accuracies(published, tasks)
    if known.empty:
        return None
    accuracies = published[published["metric"] == "accuracy"]
    spreads = accuracies.set_index([*MODEL, "task"])["sd"] / 100

    def shown(entry: Numbers, task: str) -> str:
        name = tuple(entry[key] for key in MODEL)
        return percent(entry[task], spreads.get((*name, task), nan))

    rows = [
        Row(
            entry["model"],
            [
                *(Entry(shown(entry, task)) for task in tasks),
                Entry(entry["attention"]),
                Entry(f"{entry['source_document']}, {entry['table']}"),
            ],
        )
        for entry in known.to_dict("records")
    ]
    return Table(
        title="Published accuracy",
        columns=[
            *(("test accuracy %", task_title(task)) for task in tasks),
            ("", "beside"),
            ("", "source"),
        ],
        rows=rows,
        caption="As printed in each source, under its own protocol; blank where it gives no value.",
        notes=_notes_on_code(published[published["task"].isin(tasks)]),
        num_text_columns=2,
    )


def _notes_on_code(published: pd.DataFrame) -> list[str]:
    """Say what published codes computed instead, each model of a document once."""
    noted = published[published["code"] != ""].drop_duplicates(["source_document", "model"])
    return [
        f"{row['source_document'].partition(',')[0]}: {row['model']}: {row['code']}."
        for row in noted.to_dict("records")
    ]


def _accuracies(published: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """Pivot accuracies as shares, one row for each model of each document."""
    rows = published[published["metric"].eq("accuracy") & published["task"].isin(tasks)]
    wide = rows.assign(value=rows["value"] / 100).pivot(index=MODEL, columns="task", values="value")
    order = pd.MultiIndex.from_frame(rows[MODEL].drop_duplicates())
    return wide.reindex(index=order, columns=tasks).reset_index()
