"""Say in a table, and below it line by line, which variants are sound."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from macformer.check.outcomes import Outcome
from macformer.check.training import Training
from macformer.runs.variants import Variant


@dataclass(frozen=True)
class Verdict:
    """What is known of a variant after its tests and its training."""

    variant: Variant
    outcomes: Sequence[Outcome]
    training: Training

    @property
    def num_passed(self) -> int:
        return sum(not outcome.failures for outcome in self.outcomes)

    @property
    def is_sound(self) -> bool:
        whole = bool(self.outcomes) and self.num_passed == len(self.outcomes)
        return whole and self.training.is_sound


def tabulate(verdicts: Sequence[Verdict]) -> str:
    """Return a table of one row for each variant."""
    rows = []
    for verdict in verdicts:
        training = verdict.training
        row = {
            "variant": str(verdict.variant),
            "contract": f"{verdict.num_passed}/{len(verdict.outcomes)}",
            "loss": "failed",
            "accuracy": "",
            "majority class": "",
            "verdict": "sound" if verdict.is_sound else "not sound",
        }
        if training.failure is None:
            fall = f"{training.first_loss:.3f} to {training.last_loss:.3f}"
            row["loss"] = f"{fall} in {training.steps} steps"
            row["accuracy"] = f"{100 * training.accuracy:.1f} %"
            row["majority class"] = f"{100 * training.majority:.1f} %"
        rows.append(row)
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def explain(verdict: Verdict) -> list[str]:
    """Say in a line each what is not sound, and what the suite only warns about."""
    said: dict[str, list[str]] = {}  # what keeps a variant from being built fails every property
    for outcome in verdict.outcomes:
        if outcome.failures:
            said.setdefault(_one_line(outcome.failures[0]), []).append(outcome.property)
    lines = [
        f"{names[0] if len(names) == 1 else f'{len(names)} properties'}: {message}"
        for message, names in said.items()
    ]
    training = verdict.training
    if training.failure is not None:
        lines.append(f"training failed: {_one_line(training.failure)}")
    elif training.steps < 2:
        lines.append("training took one step; whether it lowers the loss takes more to tell")
    elif not training.is_sound:
        lines.append("training does not lower the loss")
    notes = {note for outcome in verdict.outcomes for note in outcome.notes}
    lines += [f"note: {_one_line(note)}" for note in sorted(notes)]
    return [f"{verdict.variant}: {line}" for line in lines]


def _one_line(message: str) -> str:
    return textwrap.shorten(message.removeprefix("AssertionError: "), 200, placeholder=" ...")
