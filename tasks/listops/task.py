"""ListOps: evaluate a nested list expression to a digit (Nangia & Bowman, 2018; Tay et al., 2021).

[MAX 2 9 [MIN 4 7 ] 0 ]   ->   9
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import check_generator, check_rows, check_wholes, one_of
from tasks.floors import add_floors
from tasks.listops.floors import floors_of_listops
from tasks.listops.generate import VOCABULARY, Expressions, check_law, generate_listops
from tasks.listops.release import read_listops_tsv
from tasks.sources.content import content_of
from tasks.sources.local import RELEASE_FOLDERS, check_source, locate
from tasks.store.manifest import SPLITS
from tasks.store.once import prepare_once
from tasks.store.rows import TokenRows, open_split
from tasks.store.write import Chunk, Contents, Split

NUM_CLASSES = 10
_FLOOR_ROWS = 100_000

# Raise it, and task.generator_version in YAML, when a seed gives other bytes than before: old
# folders are then no longer used, and runs on the new data are new runs.
_GENERATOR = 1

_FILES = {
    "train": "listops-1000/basic_train.tsv",
    "validation": "listops-1000/basic_val.tsv",
    "test": "listops-1000/basic_test.tsv",
}

_CLOSE = VOCABULARY.index("]")


def prepare(
    data_dir: Path,
    *,
    source: str,
    source_dir: str | None,
    brackets: str,
    num_examples: Mapping[str, int],
    seed: int,
    generator_version: int,
    min_len: int,
    max_len: int,
    max_depth: int,
    max_args: int,
    num_workers: int,
) -> Path:
    """Generate the three splits, or read those of Long Range Arena.

    Args:
        source: "generate", or "lra_release" for a folder that holds listops-1000/ or is it; the
            arguments from seed on are those of the generator.
        generator_version: Which data a seed stands for; the one that there is.
        brackets: "keep", or "drop" to lose the closing brackets and with them the tree, as in the
            data of Skyformer.
    """
    check_source(source, ("generate", "lra_release"))
    one_of("task.brackets", brackets, ("keep", "drop"))
    check_rows("task.num_examples", num_examples, splits=SPLITS)
    check_law(min_len=min_len, max_len=max_len, max_depth=max_depth, max_args=max_args)
    check_wholes(num_workers=num_workers)
    check_wholes(generator_seed=seed, least=0)
    parameters: dict[str, Any] = {"brackets": brackets, "num_examples": dict(num_examples)}
    if source == "generate":
        check_generator(generator_version, there_is=_GENERATOR)
        distribution = {
            "seed": seed,
            "min_len": min_len,
            "max_len": max_len,
            "max_depth": max_depth,
            "max_args": max_args,
        }
        parameters |= {"generator": _GENERATOR, **distribution}
        generate = partial(generate_listops, num_workers=num_workers, **distribution)
        splits = partial(_generated_splits, generate, num_examples=num_examples)
    else:
        # The folder, for a file that is missing should be named.
        files = {"data_dir": data_dir, "marker": "listops-1000", "parents": RELEASE_FOLDERS}
        parameters["source"] = content_of(source_dir, **files, patterns=list(_FILES.values()))
        splits = partial(_released_splits, source_dir, num_examples=num_examples, **files)

    def contents() -> Contents:
        kept = splits()
        return Contents(
            map(_without_brackets, kept) if brackets == "drop" else kept, vocabulary=VOCABULARY
        )

    folder = prepare_once(
        data_dir / "listops",
        variant=source,
        parameters=parameters,
        contents=contents,
        num_classes=NUM_CLASSES,
        paired=False,
        num_bytes=sum(num_examples.values()) * max_len,
    )
    return add_floors(folder, floors_of_listops(brackets=brackets == "keep", max_rows=_FLOOR_ROWS))


def load(folder: Path, split: str, *, vocab_size: int, append_eos: bool) -> TokenRows:
    """Open a split; the stored numbers are the token ids."""
    return open_split(folder, split, first_id=0, vocab_size=vocab_size, append_eos=append_eos)


def _generated_splits(
    generate: Callable[[int], Iterator[Expressions]], *, num_examples: Mapping[str, int]
) -> Iterator[Split]:
    """Cut one stream without duplicates into consecutive stretches."""
    start = 0
    # The short ones first: whoever makes the last one alone has little to skip.
    for name in ("test", "validation", "train"):
        stop = start + num_examples[name]
        part = partial(_stretch, generate, start, stop)
        yield Split(name, num_rows=stop - start, parts=[part])
        start = stop


def _stretch(
    generate: Callable[[int], Iterator[Expressions]], start: int, stop: int
) -> Iterator[Chunk]:
    num_seen = 0
    for ids, lengths, labels in generate(stop):
        skipped = min(max(start - num_seen, 0), len(lengths))
        num_seen += len(lengths)
        yield Chunk(ids[lengths[:skipped].sum() :], lengths[skipped:], labels[skipped:])


def _released_splits(
    source_dir: str | None, *, num_examples: Mapping[str, int], **files: Any
) -> Iterator[Split]:
    root = locate(source_dir, **files)
    for name, file in _FILES.items():
        part = partial(read_listops_tsv, root / file)
        yield Split(name, num_rows=num_examples[name], parts=[part])


def _without_brackets(split: Split) -> Split:
    return split._replace(parts=[partial(_drop_brackets, part) for part in split.parts])


def _drop_brackets(part: Callable[[], Iterable[Chunk]]) -> Iterator[Chunk]:
    for chunk in part():
        kept = chunk.ids != _CLOSE
        num_kept_before = np.concatenate([[0], np.cumsum(kept)])
        ends = np.concatenate([[0], np.cumsum(chunk.lengths)])
        yield Chunk(chunk.ids[kept], np.diff(num_kept_before[ends]), chunk.labels)
