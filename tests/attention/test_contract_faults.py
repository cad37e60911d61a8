"""Planted faults: the property meant for each catches it, and sound variants pass every one.

The variants in ``faulty/`` come to the contract as a user's own would. They hold the faults that
published code of the baselines had, and one for each other property.
"""

import os
from collections import defaultdict
from pathlib import Path

import pytest

from macformer.check.contract import hold_to_contract
from macformer.check.variants import find_own_variants

HERE = Path(__file__).parent
FOLDER = HERE / "faulty"

CUTTING = "only a row that says positional tells padding between from none"
FAULTS = {
    "MasksValuesOnly": "padding is inert",
    "ZeroKeysStay": "padding behind equals cutting it off",
    "CountsPaddingInTraining": "padding behind equals cutting it off in training",
    "LeaksNaN": "padding is inert",
    "LeaksBackward": "padding is inert",
    "LearnsFromMasksAlone": "a mask without padding is no mask",
    "StatisticsOfPaddedQueries": "padding is inert",
    "ShortcutOnPaddedLength": "output does not depend on how far a batch is padded",
    "StridedLocal": "output does not depend on how far a batch is padded",
    "Transposed": "output has the shape of queries and values",
    "ReshapedHeads": "padding behind equals cutting it off",
    "SubtractsBatchMean": "examples are independent",
    "StabiliserOfTheBatch": "examples are independent",
    "Detached": "gradients are those of central differences",
    "LosesTangents": "forward mode is right or refused",
    "BreaksOnTangents": "forward mode is right or refused",
    "RedrawsAtEvaluation": "evaluation draws nothing",
    "ReseedsAtEvaluation": "evaluation draws nothing",
    "ReseedsInTraining": "training leaves the generator its seed",
    "NeedlesslyPositional": CUTTING,
    "NeedlesslySelfAttentionOnly": (
        "only a row that says self attention only refuses other queries"
    ),
    "TakesProjection": "two layers share no tensor",
    "PlainTensor": "a checkpoint reproduces the output",
    "ReadsTheMask": "nothing waits for the device",
    "BooleanIndex": "nothing waits for the device",
    "WidensKeys": "ops receive one dtype under autocast",
}
MIXER_FAULTS = {
    "ConvolvesPadding": "padding is inert",
    "ConvolvesPaddingInTraining": "padding is inert",
    "CountsPaddingInTraining": "padding equals cutting it off in training",
    "ReseedsAtEvaluation": "evaluation draws nothing",
    "ReseedsInTraining": "training leaves the generator its seed",
    "StatisticsOfBatch": "examples are independent",
    "ReversesPadded": "padding equals cutting it off however far it goes",
    "Detached": "gradients are those of central differences",
}
WARNINGS = {  # what a user may mean
    "Oversized": "more parameters than softmax",
    "PrivateGenerator": "the same whatever the seed",
    "HiddenSizes": "needs small values of ['block_size'] in SMALL",
}
SOUND = (
    "attention/planted_sound",
    "attention/planted_cosh",
    "attention/planted_rotary",
    "mixer/planted_Sound",
    "mixer/planted_InHeads",
)

ALL_FAULTS = {f"attention/planted_{name}": property_ for name, property_ in FAULTS.items()}
ALL_FAULTS |= {f"mixer/planted_{name}": property_ for name, property_ in MIXER_FAULTS.items()}


@pytest.fixture(scope="module")
def outcomes():
    """Run the contract on all of them at once; return each variant's outcomes by property."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        found = hold_to_contract(FOLDER)
    by_variant = defaultdict(dict)
    for outcome in found:
        by_variant[outcome.variant][outcome.property] = outcome
    return by_variant


def test_every_file_is_expected_to_do_something():
    warned = {f"attention/planted_{name}" for name in WARNINGS}
    assert set(map(str, find_own_variants(FOLDER))) == {*ALL_FAULTS, *warned, *SOUND}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "property_"), ALL_FAULTS.items(), ids=list(ALL_FAULTS))
def test_the_property_meant_for_a_fault_catches_it(outcomes, fault, property_):
    of_fault = outcomes[fault]
    assert of_fault[property_].failures
    assert any(not outcome.failures for outcome in of_fault.values())  # it was built


@pytest.mark.slow
@pytest.mark.parametrize(("name", "message"), WARNINGS.items(), ids=list(WARNINGS))
def test_what_may_be_meant_is_only_warned_about(outcomes, name, message):
    of_variant = outcomes[f"attention/planted_{name}"].values()
    assert of_variant and not any(outcome.failures for outcome in of_variant)
    assert message in " ".join(note for outcome in of_variant for note in outcome.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_sound_variants_pass_every_property(outcomes, name):
    assert not [p for p, outcome in outcomes[name].items() if outcome.failures]
    faults = FAULTS if name.startswith("attention") else MIXER_FAULTS
    assert set(faults.values()) <= outcomes[name].keys()
