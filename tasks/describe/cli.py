"""Look at a file of your own, and write a task that every other command takes.

    macformer-describe logs.csv --text message --label severity > my/task/logs.yaml
    macformer-train --config-dir my task=logs

The task goes to standard output, and what there is to say of the data to standard error.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import configs
from tasks.columns import Files, Form, column_names, find_files
from tasks.describe.example import EXAMPLES
from tasks.describe.model_files import find_model_files
from tasks.describe.page import write_page
from tasks.describe.series import SeriesOptions, describe_series
from tasks.describe.table import Options, describe_table
from tasks.errors import DataError, check_text
from tasks.series import SeriesColumns, Tokens, Windows
from tasks.series.planned import KINDS
from tasks.series.rows import WINDOW_LABELS
from tasks.series.task import MISSING
from tasks.table import Columns, Shares
from tasks.table.contents import KEEP
from tasks.tokenizers import TOKENS

# What YAML or the command line takes for a truth value, a number or nothing.
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "nan", "inf"})

# Options that are of one kind of files alone.
_OF_TEXTS = ("text", "pair", "tokens", "tokenizer")
_OF_SERIES = ("channels", "split_by_time", "window", "stride", "window_label", "patch", "missing")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake of the user, or of a file, gives one line and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    args = _parser().parse_args(arguments)
    command = shlex.join(["macformer-describe", *arguments])
    try:
        if args.example:
            written = _write_example(args.example, Path(args.path))
            print(f"wrote {written} to {args.path}", file=sys.stderr)
            return 0
        for text in arguments:  # the task will hold it
            check_text(text)
        form = Form(args.encoding, args.separator, not args.no_quotes)
        files = Files(args.path, args.validation, args.test, sha256=None, form=form)
        shares = Shares(args.validation_fraction, args.test_fraction, args.seed)
        shares.check()
        if _is_series(args):
            found = describe_series(_series_options(args, files, shares), command=command)
        else:
            found = describe_table(_options(args, files, shares), command=command)
        if args.html:
            write_page(args.html, found, title=_name(args))
    except (DataError, OSError) as error:
        print(f"macformer-describe: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(found.yaml)
    for remark in found.remarks:
        print(f"- {remark}", file=sys.stderr)
    return 0


def _write_example(name: str, path: Path) -> str:
    """Write an example where no file is, and say what.

    Raises:
        DataError: If there is one.
    """
    try:
        return EXAMPLES[name](path)
    except FileExistsError as error:
        raise DataError(f"{path} exists; --example writes a new file") from error


def _is_series(args: argparse.Namespace) -> bool:
    return bool(args.series or args.wide) or _have_labels(args.path)


def _have_labels(path: str) -> bool:
    """Say whether files hold series whose labels stand in no column."""
    suffixes = {file.suffix.lower() for file in find_files(path, suffixes=KINDS)}
    return not suffixes.isdisjoint((".npz", ".ts"))


def _name(args: argparse.Namespace) -> str:
    name = args.name or re.sub(r"\W+", "_", Path(args.path).stem.lower()).strip("_")
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise DataError(f"the name {name!r} is not of letters, digits and _; give another (--name)")
    if name.lower() in _WORDS:
        raise DataError(f"the name {name!r} is no text to a configuration; give another (--name)")
    ours = {path.stem for path in (Path(configs.__path__[0]) / "task").glob("*.yaml")}
    if name in ours | {"default", "name"}:
        raise DataError(f"a task {name!r} exists; give yours another name (--name)")
    return name


def _series_options(args: argparse.Namespace, files: Files, shares: Shares) -> SeriesOptions:
    _refuse_given(args, _OF_TEXTS, "is of tables of texts, not of series")
    if args.label is None and not _have_labels(args.path):
        raise DataError("say which column is the label (--label)")
    return SeriesOptions(
        name=_name(args),
        files=files,
        columns=SeriesColumns(
            args.series, args.time, args.channels, args.label or "y", args.group, args.split
        ),
        split_by_time=args.split_by_time,
        windows=Windows(args.window, args.stride, args.window_label),
        tokens=Tokens(args.patch, args.max_len, args.keep),
        missing=args.missing,
        shares=shares,
        floors=not args.no_floors,
    )


def _options(args: argparse.Namespace, files: Files, shares: Shares) -> Options:
    _refuse_given(args, _OF_SERIES, "is of series (--series, --wide), not of tables of texts")
    if not args.text or not args.label:
        names = column_names(find_files(args.path)[0], form=files.form)
        raise DataError(
            f"{args.path} has the columns {', '.join(map(repr, names))}; say which is the text "
            "(--text) and which the label (--label)"
        )
    return Options(
        name=_name(args),
        files=files,
        columns=Columns(
            args.text, args.pair, args.label, group=args.group, time=args.time, split=args.split
        ),
        tokens=args.tokens,
        model=None if args.tokenizer is None else find_model_files(args.tokenizer),
        max_len=args.max_len,
        keep=args.keep,
        shares=shares,
        floors=not args.no_floors,
    )


def _refuse_given(args: argparse.Namespace, options: Sequence[str], why: str) -> None:
    """Refuse options that would have no effect.

    Raises:
        DataError: With the first of them.
    """
    for option in options:
        if getattr(args, option) != _parser().get_default(option):
            raise DataError(f"--{option.replace('_', '-')} {why}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="macformer-describe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("path", help="a file, a folder of files, or a pattern: .csv .tsv .jsonl .parquet")
    add("--validation", metavar="PATH", help="files of its own (default: rows held out)")
    add("--test", metavar="PATH", help="the same for the test split")
    add("--text", nargs="+", metavar="COLUMN", help="of the text; several are joined by breaks")
    add("--pair", action="store_true", help="the two columns of --text are a pair")
    add("--label", metavar="COLUMN")
    add("--group", metavar="COLUMN", help="rows of one value share a split")
    add("--time", metavar="COLUMN", help="the last rows are held out; orders the steps of series")
    add("--split", metavar="COLUMN", help="says train, validation or test")
    add("--name", help="of the task (default: that of the file)")
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--tokens", choices=TOKENS, default="bytes")
    tokens.add_argument("--tokenizer", metavar="PATH", help="a model's folder, or a tokenizer.json")
    add("--max-len", type=_count, metavar="N", help="tokens kept (default: enough for 95 of 100)")
    add("--keep", choices=KEEP, default="head", help="what is kept of a longer text")
    add("--encoding", default="utf-8")
    add("--separator", metavar="CHARACTER", help="between values (default: a comma; a tab in .tsv)")
    add("--no-quotes", action="store_true", help='a " is a character like any other')
    add("--validation-fraction", type=float, default=0.1, metavar="SHARE")
    add("--test-fraction", type=float, default=0.1, metavar="SHARE")
    add("--seed", type=int, default=0, help="of the split")
    add("--no-floors", action="store_true", help="skip what takes longest on large files")
    add("--series", metavar="COLUMN", help="names the series of a step: a table of series")
    add("--wide", action="store_true", help="each row of a table is a series of one channel")
    add("--channels", nargs="+", metavar="COLUMN", help="of the values of a series")
    add("--split-by-time", action="store_true", help="series that begin last are held out")
    add("--window", type=_count, metavar="STEPS", help="of a row (default: a whole series)")
    add("--stride", type=_count, metavar="STEPS", help="to the next window (default: its length)")
    add("--window-label", choices=WINDOW_LABELS, default="last")
    add("--patch", type=_count, metavar="STEPS", default=1, help="of a token")
    add("--missing", choices=MISSING, default="refuse", help="what becomes of gaps in series")
    add(
        "--example",
        nargs="?",
        const="sessions",
        choices=EXAMPLES,
        help="write a file to try this on, instead: a log of sessions, or sensors of machines",
    )
    add("--html", type=Path, metavar="FILE", help="a page of what was found")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
