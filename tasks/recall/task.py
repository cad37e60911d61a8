"""Generate recall tasks into the store; each row is asked at several of its tokens."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from tasks.errors import DataError, check_generator, check_rows, check_wholes
from tasks.floors import state_floors
from tasks.recall.mqar import Mqar
from tasks.recall.selective_copy import SelectiveCopy
from tasks.store.manifest import SPLITS
from tasks.store.once import prepare_once
from tasks.store.rows import TokenRows, open_split
from tasks.store.write import Chunk, Contents, Split

# Raise it, and task.generator_version in YAML, when a seed gives other bytes than before.
_GENERATOR = 1

_ROWS_PER_CHUNK = 256
# Examples that there are for each one drawn: of a thousand test rows fewer than one is a training
# row.
_LEAST_CHOICE = 1000


def prepare_mqar(
    data_dir: Path,
    *,
    num_examples: Mapping[str, int],
    seed: int,
    generator_version: int,
    **law: Any,
) -> Path:
    """Generate multi-query associative recall.

    Args:
        generator_version: Which data a seed stands for; the one that there is.
        law: The options of :class:`~tasks.recall.mqar.Mqar`.
    """
    check_generator(generator_version, there_is=_GENERATOR)
    return _prepare(data_dir / "mqar", Mqar(**law), num_examples=num_examples, seed=seed)


def prepare_selective_copy(
    data_dir: Path,
    *,
    num_examples: Mapping[str, int],
    seed: int,
    generator_version: int,
    **law: Any,
) -> Path:
    """Generate selective copying.

    Args:
        generator_version: Which data a seed stands for; the one that there is.
        law: The options of :class:`~tasks.recall.selective_copy.SelectiveCopy`.
    """
    check_generator(generator_version, there_is=_GENERATOR)
    folder = data_dir / "selective_copy"
    return _prepare(folder, SelectiveCopy(**law), num_examples=num_examples, seed=seed)


def load(folder: Path, split: str, *, vocab_size: int, append_eos: bool) -> TokenRows:
    """Open a split; the stored numbers are the token ids."""
    return open_split(folder, split, first_id=0, vocab_size=vocab_size, append_eos=append_eos)


def generate(
    law: Mqar | SelectiveCopy, num_examples: int, *, seed: int, split: int
) -> Iterator[Chunk]:
    """Yield the examples of a split; a shorter stream is the beginning of a longer one."""
    for chunk, start in enumerate(range(0, num_examples, _ROWS_PER_CHUNK)):
        # The bit generator is named because numpy may change its default one.
        rng = Generator(PCG64(SeedSequence(seed, spawn_key=(split, chunk))))
        drawn = law.draw(rng, _ROWS_PER_CHUNK)
        drawn = drawn._replace(ids=drawn.ids.astype(_id_dtype(law)))
        yield _first(drawn, min(_ROWS_PER_CHUNK, num_examples - start))


def _first(chunk: Chunk, num_rows: int) -> Chunk:
    ids, lengths, labels, _, places = chunk
    lengths = lengths[:num_rows]
    assert places is not None
    return Chunk(ids[: lengths.sum()], lengths, labels[:num_rows], places=places[:num_rows])


def _id_dtype(law: Mqar | SelectiveCopy) -> type[np.integer]:
    """Choose the smallest of the types that torch can gather."""
    return next(t for t in (np.uint8, np.int16, np.int32) if law.largest_id <= np.iinfo(t).max)


def _prepare(
    root: Path, law: Mqar | SelectiveCopy, *, num_examples: Mapping[str, int], seed: int
) -> Path:
    law.check()
    check_rows("task.num_examples", num_examples, splits=SPLITS)
    check_wholes(generator_seed=seed, least=0)
    num_rows = sum(num_examples.values())
    if law.num_examples < _LEAST_CHOICE * num_rows:
        raise DataError(
            f"there are {law.num_examples:,} examples to draw {num_rows:,} from, so that splits "
            "would share some; allow more of them, or draw fewer"
        )
    splits = [
        Split(
            name,
            num_rows=num_examples[name],
            parts=[partial(generate, law, num_examples[name], seed=seed, split=number)],
        )
        for number, name in enumerate(SPLITS)
    ]
    dtype = _id_dtype(law)
    folder = prepare_once(
        root,
        variant="generate",
        parameters={
            "generator": _GENERATOR,
            "num_examples": dict(num_examples),
            "seed": seed,
            **law._asdict(),
        },
        contents=lambda: Contents(splits, dtype=dtype, num_questions=law.num_questions),
        num_classes=law.num_classes,
        paired=False,
        num_bytes=num_rows * (law.max_len * dtype().itemsize + 8 * law.num_questions + 12),
    )
    return state_floors(folder, law.floors())
