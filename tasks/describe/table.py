"""Describe a table: look at all of its rows, split them as its task will, and write the task."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.columns import Form, column_names, find_files
from tasks.describe.description import Description
from tasks.describe.findings import (
    Findings,
    Watcher,
    known_share,
    other_columns,
    repeated_texts,
)
from tasks.describe.model_files import ModelFiles
from tasks.describe.quote import quoted, quoted_list
from tasks.describe.remarks import remarks
from tasks.sources.digest import digest_of
from tasks.store.manifest import SPLITS, read_manifest
from tasks.table import prepare
from tasks.table.classes import check_labels, class_counts_of, classes_of
from tasks.table.examples import Columns, check_columns
from tasks.table.plan import Fractions, Part, plan, shared_texts
from tasks.table.task import GENERATOR, scan_files, token_counter
from tasks.tokenizers import load_tokenizer

_MOST_TOKENS = 4000  # Long Range Arena's longest text
_STEP = 32


class Options(NamedTuple):
    """What the command line says of a table; see its help."""

    name: str
    path: str
    path_validation: str | None
    path_test: str | None
    columns: Columns
    form: Form
    tokens: str
    model: ModelFiles | None
    max_len: int | None
    keep: str
    fractions: Fractions
    seed: int
    floors: bool

    @property
    def unit(self) -> str:
        """What a text is counted in."""
        return self.tokens if self.model is None else "tokens"


def describe_table(options: Options, *, command: str) -> Description:
    """Look at the files of a table.

    Raises:
        DataError: If they cannot make a task.
    """
    columns, form = options.columns, options.form
    check_columns(columns)
    paths = find_files(options.path)
    watcher = Watcher()
    patterns = {
        "train": options.path,
        "validation": options.path_validation,
        "test": options.path_test,
    }
    stored = None if options.model is None else load_tokenizer(options.model.tokenizer)
    count = token_counter(options.tokens, stored)
    scans = scan_files(
        patterns, columns, form=form, seed=options.seed, count_tokens=count, watch=watcher
    )
    seen = scans["train"][1]
    check_labels(seen.names, num_rows=len(seen))
    parts = plan(scans, columns, fractions=options.fractions, seed=options.seed)
    classes = classes_of(parts)
    found = _findings(parts, watcher, paths, columns, form=form)
    max_len = options.max_len or _fitting(found.lengths, most=_most_tokens(options))
    files = [file for pattern in patterns.values() if pattern for file in find_files(pattern)]
    with tempfile.TemporaryDirectory() as folder:
        keys = {
            "sha256": digest_of(files, data_dir=Path(folder)),
            "classes": list(classes),
            "class_counts": [found.counts["train"][name] for name in classes],
            "num_rows": found.num_rows,
            "max_len": max_len,
        }
        manifest = _prepare(options, keys, data_dir=Path(folder))
    floors = manifest.get("floors", {})
    said = remarks(found, columns, max_len=max_len, tokens=options.unit, floors=floors)
    vocab_size = _vocab_size(options, manifest)
    yaml = _write(options, keys, found, floors, vocab_size=vocab_size, command=command)
    return Description(
        yaml, said, classes, found.counts, found.lengths, options.unit, max_len, floors
    )


def _findings(
    parts: Sequence[Part], watcher: Watcher, paths: Sequence[Path], columns: Columns, *, form: Form
) -> Findings:
    num_repeated, num_contradicted, ceiling = repeated_texts(parts)
    templates = np.frombuffer(watcher.templates, dtype=np.uint64)
    ends = np.cumsum([len(part.scan) for part in parts])[:-1]
    return Findings(
        counts=class_counts_of(parts),
        lengths=np.sort(np.concatenate([p.scan.lengths[p.places == 0] for p in parts])),
        left_out=sum((part.scan.left_out for part in parts), type(parts[0].scan.left_out)()),
        num_repeated=num_repeated,
        num_contradicted=num_contradicted,
        ceiling=ceiling,
        known_templates=known_share(parts, np.split(templates, ends)),
        shared_texts=shared_texts(parts),
        naming={name: watcher.naming[name] / count for name, count in watcher.rows.items()},
        bytes_per_character=watcher.num_bytes / watcher.num_characters,
        others=other_columns(paths, column_names(paths[0], form=form), columns, form=form),
    )


def _fitting(lengths: np.ndarray, *, most: int) -> int:
    """Return a length that 95 of 100 texts fit into, and no more than the longest has."""
    wanted = -(-int(np.quantile(lengths, 0.95, method="higher")) // _STEP) * _STEP
    return min(wanted, most)


def _most_tokens(options: Options) -> int:
    of_model = options.model.most_tokens if options.model else None
    return min(_MOST_TOKENS, of_model or _MOST_TOKENS)


def _vocab_size(options: Options, manifest: Mapping[str, Any]) -> int:
    """Count the ids that tokens may have, padding among them."""
    if options.model is not None:
        return options.model.vocab_size + 1
    return 257 if options.tokens == "bytes" else len(manifest["vocabulary"]) + 1


def _prepare(options: Options, keys: Mapping[str, Any], *, data_dir: Path) -> dict[str, Any]:
    """Prepare the task once, as its first run will, for what only that tells."""
    if not options.floors and (options.tokens == "bytes" or options.model is not None):
        return {}
    columns = options.columns._asdict()
    folder = prepare(
        data_dir,
        name=options.name,
        path=options.path,
        path_validation=options.path_validation,
        path_test=options.path_test,
        num_classes=len(keys["classes"]),
        tokens=options.tokens,
        tokenizer=str(options.model.tokenizer) if options.model else None,
        min_frequency=2,
        keep=options.keep,
        validation_fraction=options.fractions.validation,
        test_fraction=options.fractions.test,
        seed=options.seed,
        generator_version=GENERATOR,
        **options.form._asdict(),
        **columns,
        **keys,
    )
    return read_manifest(folder)


def _write(
    options: Options,
    keys: Mapping[str, Any],
    found: Findings,
    floors: Mapping[str, Any],
    *,
    vocab_size: int,
    command: str,
) -> str:
    columns, form = options.columns, options.form
    lines = [
        f"# macformer-train --config-dir my task={options.name} recipe=smoke logger=curve",
        f"# Written by {command}",
        *_comments(keys, found, floors, tokens=options.unit),
        "defaults: [_table, _self_]",
        "",
        f"name: {options.name}",
        f"path: {_path(options.path)}",
        f"path_validation: {_path(options.path_validation)}",
        f"path_test: {_path(options.path_test)}",
        f"sha256: {keys['sha256']}",
        f"encoding: {quoted(form.encoding)}",
        f"separator: {_or_null(form.separator)}",
        f"quotes: {str(form.quotes).lower()}",
        f"text: {quoted_list(columns.text)}",
        f"paired: {str(columns.paired).lower()}",
        f"label: {quoted(columns.label)}",
        f"group: {_or_null(columns.group)}",
        f"time: {_or_null(columns.time)}",
        f"split: {_or_null(columns.split)}",
        f"classes: {quoted_list(keys['classes'])}",
        f"num_classes: {len(keys['classes'])}",
        f"class_counts: {keys['class_counts']}   # training rows",
        "num_rows: {" + ", ".join(f"{name}: {keys['num_rows'][name]}" for name in SPLITS) + "}",
        f"tokens: {options.tokens}",
        f"tokenizer: {_path(str(options.model.tokenizer) if options.model else None)}",
        f"vocab_size: {vocab_size}",
        f"max_len: {keys['max_len']}",
        f"keep: {options.keep}",
        f"validation_fraction: {options.fractions.validation}",
        f"test_fraction: {options.fractions.test}",
        f"split_seed: {options.seed}",
    ]
    return "\n".join(lines) + "\n"


def _comments(
    keys: Mapping[str, Any], found: Findings, floors: Mapping[str, Any], *, tokens: str
) -> list[str]:
    quantiles = np.quantile(found.lengths, [0, 0.05, 0.5, 0.95, 1], method="nearest").astype(int)
    names = ("min", "5 %", "median", "95 %", "max")
    shown = ", ".join(f"{n} {q:,}" for n, q in zip(names, quantiles, strict=True))
    cut = 100 * float((found.lengths > keys["max_len"]).mean())
    left_out = ", ".join(f"{reason} {n:,}" for reason, n in found.left_out.items()) or "none"
    lines = [
        f"# {tokens} of a training text: {shown}; {cut:.1f} % are longer than max_len",
        f"# rows left out: {left_out}",
    ]
    for name, floor in floors.items():
        lines.append(f"# floor of {100 * floor['accuracy']:.1f} %, {name}: {floor['recipe']}")
    return lines


def _path(pattern: str | None) -> str:
    return "null" if pattern is None else quoted(str(Path(pattern).expanduser().absolute()))


def _or_null(text: str | None) -> str:
    return "null" if text is None else quoted(text)
