"""What a careful colleague would say of a table before anything is trained on it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tasks.describe.findings import Findings
from tasks.table import Columns, Shares

_UNEQUAL = 2  # the largest class has so many times the rows of the smallest one
_NAMES_ITSELF = 0.9
_FEW_TEST_ROWS = 1000
_FEW_VALIDATION_ROWS = 30
_FEW_OF_A_CLASS = 10
_OFTEN = 0.05
_HIGH_FLOOR = 0.95
_FAR = 2  # times the share of the rows that is asked for


def remarks(
    found: Findings,
    columns: Columns,
    shares: Shares,
    *,
    max_len: int,
    tokens: str,
    floors: Mapping[str, Any],
) -> list[str]:
    """Return sentences, the gravest first."""
    return [
        *of_counts(found.counts, found.left_out),
        *of_shares(found.drawn, columns, shares),
        *_of_texts(found, columns),
        *_of_splits(found, columns),
        *_of_lengths(found, max_len=max_len, tokens=tokens),
        *of_floors(floors, ceiling=found.ceiling),
    ]


def of_counts(by_split: Mapping[str, Counter[str]], left_out: Counter[str]) -> Iterator[str]:
    """Say what there is to say of how many rows each label has, and how many are left out."""
    counts = sum(by_split.values(), Counter())
    total = counts.total()
    (name, most), (rarest, least) = counts.most_common(1)[0], counts.most_common()[-1]
    if most > _UNEQUAL * least:
        yield (
            f"classes are unequal: {name} {_percent(most, total)}, {rarest} "
            f"{_percent(least, total)}; always answering {name} is right "
            f"{_percent(most, total)} of the time, so read macro F1 and balanced accuracy beside "
            "accuracy, and try objective=balanced"
        )
    rare = [n for n in counts if by_split["test"][n] < _FEW_OF_A_CLASS]
    if rare:
        yield (
            f"the test split has fewer than {_FEW_OF_A_CLASS} rows of {_listed(rare)}: what is "
            "measured of them says little"
        )
    yield from _of_sizes(by_split)
    alike: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        alike[" ".join(label.lower().split())].append(label)
    for names in alike.values():
        if len(names) > 1:
            yield f"labels that differ by case or blanks alone count as several: {_listed(names)}"
    for reason, number in left_out.items():
        yield f"{number:,} rows have {reason} and are left out"


def _of_sizes(by_split: Mapping[str, Counter[str]]) -> Iterator[str]:
    num_test, num_validation = (by_split[split].total() for split in ("test", "validation"))
    if num_test < _FEW_TEST_ROWS:
        points = 100 * 1.96 * 0.5 / np.sqrt(num_test)
        yield (
            f"the test split has {num_test:,} rows: an accuracy near 50 % is known to "
            f"± {points:.1f} points, and smaller differences between rows are not"
        )
    if num_validation < _FEW_VALIDATION_ROWS:
        yield (
            f"the validation split has {num_validation:,} rows, too few to choose a checkpoint or "
            "an option by; --validation-fraction gives it more of the training rows"
        )


def of_shares(drawn: Mapping[str, float], columns: Columns, asked: Shares) -> Iterator[str]:
    """Say which splits rows that stay together make far larger or smaller than is asked for.

    Args:
        drawn: The share of the rows that each split has that is drawn from them.
    """
    column = columns.group or columns.time
    others = "another --seed, or " if columns.group else ""
    for split in ("validation", "test") if column else ():
        fraction = getattr(asked, split)
        if split in drawn and not 1 / _FAR <= drawn[split] / fraction <= _FAR:
            yield (
                f"the {split} split has {100 * drawn[split]:.1f} % of the rows, not the "
                f"{100 * fraction:.1f} % asked for: rows of one {column} stay together; {others}"
                f"another --{split}-fraction may come nearer"
            )


def _of_texts(found: Findings, columns: Columns) -> Iterator[str]:
    total = sum(found.num_rows.values())
    named = [n for n, share in found.naming.items() if share > _NAMES_ITSELF and len(n) > 1]
    if named:
        yield (
            f"{_listed(named)} stands in over {100 * _NAMES_ITSELF:.0f} % of its own rows' text: "
            "the answer may be in the question; take it out, or ask for what is not known yet"
        )
    if found.num_contradicted:
        yield (
            f"{found.num_contradicted:,} rows ({_percent(found.num_contradicted, total)}) have a "
            "text that occurs with several labels: no model can exceed "
            f"{100 * found.ceiling:.1f} % accuracy"
        )
    if found.num_repeated > _OFTEN * total:
        yield (
            f"{found.num_repeated:,} rows ({_percent(found.num_repeated, total)}) repeat a text; "
            + ("equal texts share a split" if columns.decider is None else "see below")
        )
    if found.known_templates > 0.5:
        yield (
            f"{100 * found.known_templates:.0f} % of the test rows equal a training row except for "
            "numbers: the model learns templates, and a look-up may be enough"
        )


def _of_splits(found: Findings, columns: Columns) -> Iterator[str]:
    for split, number in found.shared_texts.items():
        if number:
            yield (
                f"{number:,} rows of {split} ({_percent(number, found.num_rows[split])}) have a "
                "text that a training row has, too"
            )
    if columns.decider is None:
        for column in found.others:
            if column.is_time:
                yield (
                    f"column {column.name} holds times: if the model will see later rows than "
                    f"those it learnt from, split by it (--time {column.name})"
                )
            elif 3 <= column.num_values <= column.num_rows / 5:
                yield (
                    f"column {column.name} has {column.num_values:,} values: if rows of one are "
                    f"alike, and others will be met, split by it (--group {column.name})"
                )


def _of_lengths(found: Findings, *, max_len: int, tokens: str) -> Iterator[str]:
    cut = float((found.lengths > max_len).mean())
    if cut > 0:
        yield (
            f"{100 * cut:.1f} % of the training texts are longer than {max_len:,} {tokens} and are "
            "cut; if what matters stands at their end, as in many logs, --keep tail"
        )
    if tokens == "bytes" and found.bytes_per_character > 1.5:
        yield (
            f"a character takes {found.bytes_per_character:.1f} bytes: --tokens characters makes "
            "sequences that much shorter"
        )


def of_floors(floors: Mapping[str, Any], *, ceiling: float = 1.0) -> Iterator[str]:
    """Say where a floor leaves little to win.

    Args:
        ceiling: The most that can be right.
    """
    if not floors:
        return
    name, floor = max(floors.items(), key=lambda item: item[1]["accuracy"])
    best = floor["accuracy"]
    if best >= _HIGH_FLOOR * ceiling:
        yield (
            f"without any attention the floor {name} has {100 * best:.1f} % right: there is little "
            "left to win, and a cheaper model may be what you need"
        )


def _percent(part: int, total: int) -> str:
    return f"{100 * part / total:.1f} %"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
