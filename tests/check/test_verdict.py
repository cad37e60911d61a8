"""Which variants are sound, and what is said of those that are not."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from macformer.check.outcomes import Outcome
from macformer.check.training import Training
from macformer.check.verdict import Verdict, explain, tabulate
from macformer.runs.variants import Variant

ELU = Variant(Path("mine"), "attention", "elu")
FINE = [Outcome("attention/elu", "padding is inert"), Outcome("attention/elu", "it draws")]
LEARNT = Training(steps=200, first_loss=2.3, last_loss=2.1, accuracy=0.25, majority=0.176)


def verdict(outcomes=FINE, training=LEARNT) -> Verdict:
    return Verdict(ELU, outcomes, training)


def test_a_sound_variant_needs_no_word():
    assert verdict().is_sound and explain(verdict()) == []
    row = tabulate([verdict()]).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    expected = ["attention/elu", "2/2", "2.300 to 2.100 in 200 steps", "25.0 %", "17.6 %", "sound"]
    assert cells == expected


@pytest.mark.parametrize(
    ("outcomes", "training", "line"),
    [
        (
            [replace(FINE[0], failures=["AssertionError: not close\n\nby 3"]), FINE[1]],
            LEARNT,
            "attention/elu: padding is inert: not close by 3",
        ),
        (
            [replace(outcome, failures=["No module named elu"]) for outcome in FINE],
            LEARNT,
            "attention/elu: 2 properties: No module named elu",
        ),
        (
            FINE,
            Training(failure="the loss is nan in step 7"),
            "attention/elu: training failed: the loss is nan in step 7",
        ),
        (
            FINE,
            replace(LEARNT, last_loss=2.3),
            "attention/elu: training does not lower the loss",
        ),
        (
            FINE,
            replace(LEARNT, steps=1, last_loss=2.3),
            "attention/elu: training took one step; whether it lowers the loss takes more to tell",
        ),
        (
            FINE,
            replace(LEARNT, last_loss=math.nan),
            "attention/elu: training does not lower the loss",
        ),
    ],
    ids=["contract", "not_built", "failed", "no_fall", "one_step", "nan"],
)
def test_what_is_not_sound_is_said_in_one_line(outcomes, training, line):
    it = verdict(outcomes, training)
    assert not it.is_sound and explain(it) == [line]
    assert tabulate([it]).splitlines()[-1].rstrip(" |").endswith("not sound")


def test_a_suite_that_tried_nothing_finds_nothing_sound():
    assert not verdict(outcomes=[]).is_sound


def test_a_note_is_said_and_does_no_harm():
    it = verdict([replace(FINE[0], notes=["30 % more parameters"]), FINE[1]])
    assert it.is_sound and explain(it) == ["attention/elu: note: 30 % more parameters"]
