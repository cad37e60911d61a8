"""Prepare a table of one's own: read it once to plan, and once more to write each split."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tasks.columns import Files
from tasks.columns.row import Advance
from tasks.errors import check_generator, check_name, check_wholes, one_of
from tasks.floors import add_floors
from tasks.floors.sequences import floor_of_pairs, floors_of_texts
from tasks.sources.digest import digest_of, last_digest_of
from tasks.store.manifest import read_manifest
from tasks.store.once import prepare_once
from tasks.store.rows import TokenRows, open_split
from tasks.store.write import Contents
from tasks.table.classes import Expected, check_labels, check_plan, check_prepared
from tasks.table.contents import KEEP, Tokens, table_contents
from tasks.table.examples import Columns, Example, check_columns
from tasks.table.plan import Part, Shares, plan
from tasks.table.scan import Scan, scan
from tasks.tokenizers import TOKENS, Tokenizer, load_tokenizer, no_tokenizer

# Raise it, and task.generator_version in YAML, when files give other rows than before: old folders
# are then no longer used, and runs on the new rows are new runs.
GENERATOR = 1

_MOST_FITTED = 10_000
FLOORS = floors_of_texts(max_rows=_MOST_FITTED)
FLOORS_OF_PAIRS = {"overlap": floor_of_pairs(max_rows=_MOST_FITTED)}


def prepare(
    data_dir: Path,
    *,
    name: str,
    files: Files,
    columns: Columns,
    tokens: Tokens,
    tokenizer: str | None,
    expected: Expected,
    shares: Shares,
    generator_version: int,
) -> Path:
    """Split the rows of a user's files and store their texts as tokens.

    Rows without a text or a label are left out. Equal texts share a split, and each class is shared
    out alike, unless a column or files of their own decide the splits; which rows are held out then
    follows from their contents and the seed, not from their order.

    Args:
        tokenizer: A ``tokenizer.json``, in place of the kind of tokens.
        generator_version: Which rows files stand for; the one that there is.
    """
    check_generator(generator_version, there_is=GENERATOR)
    one_of("task.tokens", tokens.kind, TOKENS)
    one_of("task.keep", tokens.keep, KEEP)
    check_name(name)
    check_wholes(max_len=tokens.max_len, min_frequency=tokens.min_frequency)
    check_columns(columns)
    files.form.check()
    shares.check()
    expected.check()
    source = files.digest(data_dir=data_dir)
    parameters = {
        "generator": GENERATOR,
        "source": source,
        "files": list(files.patterns),
        **columns._asdict(),
        **files.form._asdict(),
        **tokens._asdict(),
        "classes": expected.classes,
        "validation_fraction": shares.validation,
        "test_fraction": shares.test,
        "seed": shares.seed,
    }
    if tokenizer is not None:
        parameters["tokenizer"] = _digest_of_tokenizer(Path(tokenizer), data_dir=data_dir)

    def contents() -> Contents:
        stored = None if tokenizer is None else load_tokenizer(Path(tokenizer))
        count = token_counter(tokens.kind, stored)
        parts = plan_files(files, columns, shares, count_tokens=count)
        check_plan(parts, expected)
        written = table_contents(
            parts, columns, form=files.form, tokens=tokens, stored=stored, classes=expected.classes
        )
        return written._replace(confirm=partial(files.confirm, source, data_dir=data_dir))

    folder = prepare_once(
        data_dir / "table",
        variant=name,
        parameters=parameters,
        contents=contents,
        num_classes=expected.num_classes,
        paired=columns.paired,
        num_bytes=files.num_bytes() * (1 if tokens.kind == "bytes" and tokenizer is None else 4),
    )
    check_prepared(folder, expected)
    return add_floors(folder, FLOORS_OF_PAIRS if columns.paired else FLOORS)


def _digest_of_tokenizer(path: Path, *, data_dir: Path) -> str:
    """Return the checksum of a tokenizer; if it is gone, the one that it last had.

    Raises:
        DataError: If it never was there.
    """
    if path.is_file():
        return digest_of([path], data_dir=data_dir)
    if known := last_digest_of([path], data_dir=data_dir):
        return known
    raise no_tokenizer(path)


def load(folder: Path, split: str, *, vocab_size: int, append_eos: bool) -> TokenRows:
    """Open a split; the id of a byte, or of a character's place, is that number plus 1."""
    rows = open_split(folder, split, first_id=1, vocab_size=vocab_size, append_eos=append_eos)
    cut = read_manifest(folder)["parameters"]
    # Special tokens stand at the end of what is kept of a text.
    keeps_end = cut["keep"] != "head" or "tokenizer" in cut
    return replace(rows, keeps_end=keeps_end, in_file_order=True)


def token_counter(tokens: str, stored: Tokenizer | None) -> Callable[[bytes], int]:
    """Return what counts the tokens of a text, special ones included."""
    if stored is not None:
        special = len(stored.front) + len(stored.back)
        return lambda text: len(stored.encode(text)) + special
    return len if tokens == "bytes" else lambda text: len(text.decode())


def plan_files(
    files: Files,
    columns: Columns,
    shares: Shares,
    *,
    count_tokens: Callable[[bytes], int],
    watch: Callable[[Example], None] | None = None,
) -> list[Part]:
    """Read files once, and give each row its split.

    Args:
        watch: Called with each example.
    """

    def look(split: str, paths: Sequence[Path], advance: Advance) -> tuple[Sequence[Path], Scan]:
        seen = scan(
            paths,
            columns.of_files(split),
            form=files.form,
            seed=shares.seed,
            count_tokens=count_tokens,
            advance=advance,
            watch=watch,
        )
        return paths, seen

    scans = files.read(look)
    check_labels(scans["train"][1])
    return plan(scans, columns, shares)
