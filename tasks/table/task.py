"""Prepare a table of one's own: read it twice, once to plan and once to write."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tasks.columns import Form, find_files
from tasks.errors import DataError, check_generator, one_of
from tasks.floors import Floor, add_floors
from tasks.floors.sequences import predict_by_ngrams, predict_by_overlap
from tasks.sources.digest import checked_digest, digest_of
from tasks.splits import check_fractions
from tasks.store.rows import TokenRows, open_split
from tasks.store.write import Contents, prepare_once, progress_bar
from tasks.table.classes import check_labels, check_plan
from tasks.table.contents import KEEP, Tokens, table_contents
from tasks.table.examples import Columns, Example, check_columns
from tasks.table.plan import Fractions, plan
from tasks.table.scan import Scan, scan
from tasks.tokenizers import TOKENS, Tokenizer, load_tokenizer

# Raise it, and task.generator_version in YAML, when files give other rows than before: old folders
# are then no longer used, and runs on the new rows are new runs.
GENERATOR = 1

_MOST_FITTED = 10_000
FLOORS = {
    "tokens": Floor(
        "logistic regression on which tokens occur in the first 4,000",
        partial(predict_by_ngrams, lengths=(1,), strength=10.0),
        max_rows=_MOST_FITTED,
    ),
    "ngrams": Floor(
        "logistic regression on which 3- to 5-grams of tokens occur in the first 4,000, "
        "hashed to 2^18 columns",
        partial(predict_by_ngrams, lengths=(3, 4, 5), strength=10.0),
        max_rows=_MOST_FITTED,
    ),
}
FLOORS_OF_PAIRS = {
    "overlap": Floor(
        "logistic regression on the cosines between the sets of 3-, 5- and 8-grams of the first "
        "4,000 tokens, hashed to 2^16 buckets, and the logarithms of both lengths",
        predict_by_overlap,
        max_rows=_MOST_FITTED,
    ),
}


def prepare(
    data_dir: Path,
    *,
    name: str,
    path: str,
    path_validation: str | None,
    path_test: str | None,
    sha256: str | None,
    encoding: str,
    separator: str | None,
    quotes: bool,
    text: Sequence[str],
    paired: bool,
    label: str,
    group: str | None,
    time: str | None,
    split: str | None,
    classes: Sequence[str],
    num_classes: int,
    class_counts: Sequence[int] | None,
    num_rows: Mapping[str, int] | None,
    tokens: str,
    tokenizer: str | None,
    min_frequency: int,
    max_len: int,
    keep: str,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    generator_version: int,
) -> Path:
    """Split the rows of a user's files and store their texts as tokens.

    Rows without a text or a label are left out. Equal texts share a split, and each class is shared
    out alike, unless a column or files of their own decide the splits; which rows are held out then
    follows from their contents and the seed, not from their order.

    Args:
        path: A file, a folder of files, or a pattern; all of them, or those to train on.
        path_validation: The same for validation; None holds rows out of those of path.
        path_test: The same for the test split.
        sha256: Of all files, as :func:`tasks.sources.digest.digest_of` gives it; None takes any.
        text: The columns of the text, joined by line breaks, or the two of a pair.
        group: Column whose rows of one value share a split.
        time: Column by which the last rows are held out.
        split: Column that names the split of each row.
        classes: The labels of the training rows, in the order of their ids.
        class_counts: Training rows expected of each; None takes any.
        num_rows: Rows expected of each split; None takes any.
        tokenizer: A ``tokenizer.json``, in place of tokens.
        keep: Which tokens of a text of more than max_len are kept.
        generator_version: Which rows files stand for; the one that there is.
    """
    check_generator(generator_version, there_is=GENERATOR)
    one_of("task.tokens", tokens, TOKENS)
    one_of("task.keep", keep, KEEP)
    columns = Columns(list(text), paired, label, group=group, time=time, split=split)
    check_columns(columns)
    check_fractions(validation_fraction=validation_fraction, test_fraction=test_fraction)
    fractions = Fractions(validation_fraction, test_fraction)
    if len(classes) != num_classes:
        raise DataError(f"task.num_classes is {num_classes}; task.classes has {len(classes)}")
    form = Form(encoding, separator, quotes)
    tokenise = Tokens(tokens, min_frequency, max_len, keep)
    stored = None if tokenizer is None else load_tokenizer(Path(tokenizer))
    patterns = {"train": path, "validation": path_validation, "test": path_test}
    content = checked_digest(_all_files, patterns, sha256, data_dir=data_dir)
    parameters = {
        "generator": GENERATOR,
        "source": content,
        "files": [split for split, pattern in patterns.items() if pattern],
        **columns._asdict(),
        **form._asdict(),
        **tokenise._asdict(),
        "classes": list(classes),
        "validation_fraction": validation_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
    }

    if tokenizer is not None:
        parameters["tokenizer"] = digest_of([Path(tokenizer)], data_dir=data_dir)

    def contents() -> Contents:
        count = token_counter(tokens, stored)
        scans = scan_files(patterns, columns, form=form, seed=seed, count_tokens=count)
        seen = scans["train"][1]
        check_labels(seen.names, num_rows=len(seen))
        parts = plan(scans, columns, fractions=fractions, seed=seed)
        check_plan(parts, classes=classes, class_counts=class_counts, num_rows=num_rows)
        return table_contents(
            parts, columns, form=form, tokens=tokenise, stored=stored, classes=classes
        )

    folder = prepare_once(
        data_dir / "table",
        variant=name,
        parameters=parameters,
        contents=contents,
        num_classes=num_classes,
        paired=paired,
        num_bytes=_size(patterns) * (1 if tokens == "bytes" and stored is None else 4),
    )
    return add_floors(folder, FLOORS_OF_PAIRS if paired else FLOORS)


def load(folder: Path, split: str, *, vocab_size: int, append_eos: bool) -> TokenRows:
    """Open a split; the id of a byte, or of a character's place, is that number plus 1."""
    return open_split(folder, split, first_id=1, vocab_size=vocab_size, append_eos=append_eos)


def token_counter(tokens: str, stored: Tokenizer | None) -> Callable[[bytes], int]:
    """Return what counts the tokens of a text, special ones included."""
    if stored is not None:
        special = len(stored.front) + len(stored.back)
        return lambda text: len(stored.encode(text)) + special
    return len if tokens == "bytes" else lambda text: len(text.decode())


def scan_files(
    patterns: Mapping[str, str | None],
    columns: Columns,
    *,
    form: Form,
    seed: int,
    count_tokens: Callable[[bytes], int],
    watch: Callable[[Example], None] | None = None,
) -> dict[str, tuple[list[Path], Scan]]:
    """Read the files of each split that has its own once, with a bar.

    Args:
        watch: Called with each example.
    """
    files = _files(patterns)
    scans = {}
    with progress_bar() as bar:
        for split, paths in files.items():
            task = bar.add_task(f"read {split}", total=_total(paths))
            seen = scan(
                paths,
                columns,
                form=form,
                seed=seed,
                count_tokens=count_tokens,
                advance=lambda done, task=task: bar.update(task, completed=done),
                watch=watch,
            )
            scans[split] = (paths, seen)
    return scans


def _files(patterns: Mapping[str, str | None]) -> dict[str, list[Path]]:
    return {split: find_files(pattern) for split, pattern in patterns.items() if pattern}


def _all_files(patterns: Mapping[str, str | None]) -> list[Path]:
    return [file for paths in _files(patterns).values() for file in paths]


def _size(patterns: Mapping[str, str | None]) -> int:
    try:
        return sum(map(_total, _files(patterns).values()))
    except DataError:
        return 0


def _total(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
