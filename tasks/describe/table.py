"""Describe a table: look at all of its rows, split them as its task will, and write the task."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.columns import Files, Form, column_names
from tasks.describe.description import Description
from tasks.describe.findings import (
    Findings,
    Watcher,
    known_share,
    other_columns,
    repeated_texts,
)
from tasks.describe.model_files import ModelFiles
from tasks.describe.quote import quoted, quoted_list, quoted_or_null, quoted_path
from tasks.describe.remarks import remarks
from tasks.describe.task_file import floor_lines, task_file
from tasks.store.manifest import read_manifest
from tasks.table import Columns, Expected, Shares, Tokens, prepare
from tasks.table.classes import class_counts_of, expected_of
from tasks.table.contents import table_contents
from tasks.table.examples import check_columns
from tasks.table.plan import Part, drawn_shares, left_out, shared_texts
from tasks.table.task import GENERATOR, plan_files, token_counter
from tasks.tokenizers import load_tokenizer

_MIN_FREQUENCY = 2  # of characters
_MOST_TOKENS = 4000  # Long Range Arena's longest text
_STEP = 32


class Options(NamedTuple):
    """What the command line says of a table; see its help."""

    name: str
    files: Files
    columns: Columns
    tokens: str
    model: ModelFiles | None
    max_len: int | None
    keep: str
    shares: Shares
    floors: bool

    @property
    def unit(self) -> str:
        """What a text is counted in."""
        return self.tokens if self.model is None else "tokens"

    @property
    def tokenizer(self) -> str | None:
        return str(self.model.tokenizer) if self.model else None


def describe_table(options: Options, *, command: str) -> Description:
    """Look at the files of a table.

    Raises:
        DataError: If they cannot make a task.
    """
    columns = options.columns
    check_columns(columns)
    watcher = Watcher()
    stored = None if options.model is None else load_tokenizer(options.model.tokenizer)
    count = token_counter(options.tokens, stored)
    parts = plan_files(options.files, columns, options.shares, count_tokens=count, watch=watcher)
    expected = expected_of(parts)
    found = _findings(parts, watcher, columns, form=options.files.form)
    max_len = options.max_len or _fitting(found.lengths, most=_most_tokens(options))
    tokens = Tokens(options.tokens, _MIN_FREQUENCY, max_len, options.keep)
    with tempfile.TemporaryDirectory() as folder:
        sha256 = options.files.digest(data_dir=Path(folder))
        options = options._replace(files=options.files._replace(sha256=sha256))
        floors = _floors(options, expected, tokens, data_dir=Path(folder))
    said = remarks(
        found, columns, options.shares, max_len=max_len, tokens=options.unit, floors=floors
    )
    yaml = task_file(
        "table",
        options.name,
        files=options.files,
        expected=expected,
        shares=options.shares,
        options=_lines(options, tokens, vocab_size=_vocab_size(options, parts, expected, tokens)),
        comments=[*_comments(found, tokens, unit=options.unit), *floor_lines(floors)],
        command=command,
    )
    return Description(
        yaml, said, expected.classes, found.counts, found.lengths, options.unit, max_len, floors
    )


def _findings(parts: Sequence[Part], watcher: Watcher, columns: Columns, *, form: Form) -> Findings:
    paths = parts[0].paths
    num_repeated, num_contradicted, ceiling = repeated_texts(parts)
    templates = np.frombuffer(watcher.templates, dtype=np.uint64)
    ends = np.cumsum([len(part.scan) for part in parts])[:-1]
    return Findings(
        counts=class_counts_of(parts),
        lengths=np.sort(np.concatenate([p.scan.lengths[p.places == 0] for p in parts])),
        left_out=left_out(parts),
        num_repeated=num_repeated,
        num_contradicted=num_contradicted,
        ceiling=ceiling,
        known_templates=known_share(parts, np.split(templates, ends)),
        shared_texts=shared_texts(parts),
        drawn=drawn_shares(parts),
        naming={name: watcher.naming[name] / count for name, count in watcher.rows.items()},
        bytes_per_character=watcher.num_bytes / watcher.num_characters,
        others=other_columns(paths, column_names(paths[0], form=form), columns, form=form),
    )


def _fitting(lengths: np.ndarray, *, most: int) -> int:
    """Return the length in whole steps that 95 of 100 texts fit into, or the most there may be."""
    wanted = -(-int(np.quantile(lengths, 0.95, method="higher")) // _STEP) * _STEP
    return min(wanted, most)


def _most_tokens(options: Options) -> int:
    of_model = options.model.most_tokens if options.model else None
    return min(_MOST_TOKENS, of_model or _MOST_TOKENS)


def _vocab_size(options: Options, parts: Sequence[Part], expected: Expected, tokens: Tokens) -> int:
    """Count the ids that tokens may have, padding among them."""
    if options.model is not None:
        return options.model.vocab_size + 1
    if options.tokens == "bytes":
        return 257
    contents = table_contents(
        parts,
        options.columns,
        form=options.files.form,
        tokens=tokens,
        stored=None,
        classes=expected.classes,
    )
    return len(contents.vocabulary) + 1


def _floors(
    options: Options, expected: Expected, tokens: Tokens, *, data_dir: Path
) -> dict[str, Any]:
    """Prepare the task once, as its first run will, for what only that tells."""
    if not options.floors:
        return {}
    folder = prepare(
        data_dir,
        name=options.name,
        files=options.files,
        columns=options.columns,
        tokens=tokens,
        tokenizer=options.tokenizer,
        expected=expected,
        shares=options.shares,
        generator_version=GENERATOR,
    )
    return read_manifest(folder).get("floors", {})


def _lines(options: Options, tokens: Tokens, *, vocab_size: int) -> Iterator[str]:
    columns = options.columns
    yield f"text: {quoted_list(columns.text)}"
    yield f"paired: {str(columns.paired).lower()}"
    yield f"label: {quoted(columns.label)}"
    yield f"group: {quoted_or_null(columns.group)}"
    yield f"time: {quoted_or_null(columns.time)}"
    yield f"split: {quoted_or_null(columns.split)}"
    yield f"tokens: {tokens.kind}"
    yield f"min_frequency: {tokens.min_frequency}"
    yield f"tokenizer: {quoted_path(options.tokenizer)}"
    yield f"vocab_size: {vocab_size}"
    yield f"max_len: {tokens.max_len}"
    yield f"keep: {tokens.keep}"


def _comments(found: Findings, tokens: Tokens, *, unit: str) -> Iterator[str]:
    quantiles = np.quantile(found.lengths, [0, 0.05, 0.5, 0.95, 1], method="nearest").astype(int)
    names = ("min", "5 %", "median", "95 %", "max")
    shown = ", ".join(f"{n} {q:,}" for n, q in zip(names, quantiles, strict=True))
    cut = 100 * float((found.lengths > tokens.max_len).mean())
    yield f"{unit} of a training text: {shown}; {cut:.1f} % are longer than max_len"
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in found.left_out.items())
    yield f"rows left out: {reasons or 'none'}"
