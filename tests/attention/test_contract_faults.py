"""Planted faults: the property meant for each catches it, and sound rows pass every one.

The rows in ``faulty/`` come to the contract as a user's own would, by ``--config-dir``. They hold
the faults that published code of the baselines had, and one for each other property.
"""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent
FOLDER = HERE / "faulty"
CONTRACT = [str(HERE / f"test_contract{part}.py") for part in ("", "_state", "_device")]

CUTTING = "test_only_a_row_that_says_positional_tells_padding_between_from_none"
FAULTS = {
    "MasksValuesOnly": "test_padding_is_inert",
    "ZeroKeysStay": "test_padding_behind_equals_cutting_it_off",
    "LeaksNaN": "test_padding_is_inert",
    "LeaksBackward": "test_padding_is_inert",
    "StatisticsOfPaddedQueries": "test_padding_is_inert",
    "ShortcutOnPaddedLength": "test_output_does_not_depend_on_how_far_a_batch_is_padded",
    "StridedLocal": "test_output_does_not_depend_on_how_far_a_batch_is_padded",
    "Transposed": "test_output_has_the_shape_of_queries_and_values",
    "ReshapedHeads": "test_padding_behind_equals_cutting_it_off",
    "SubtractsBatchMean": "test_examples_are_independent",
    "StabiliserOfTheBatch": "test_examples_are_independent",
    "Detached": "test_gradients_are_those_of_central_differences",
    "RedrawsAtEvaluation": "test_evaluation_draws_nothing",
    "NeedlesslyPositional": CUTTING,
    "NeedlesslySelfAttentionOnly": (
        "test_only_a_row_that_says_self_attention_only_refuses_other_queries"
    ),
    "TakesProjection": "test_two_layers_share_no_tensor",
    "PlainTensor": "test_a_checkpoint_reproduces_the_output",
    "ReadsTheMask": "test_nothing_waits_for_the_device",
    "BooleanIndex": "test_nothing_waits_for_the_device",
    "WidensKeys": "test_ops_receive_one_dtype_under_autocast",
}
WARNINGS = {  # what a user may mean
    "Oversized": "more parameters than softmax",
    "PrivateGenerator": "the same whatever the seed",
    "HiddenSizes": "needs small values of ['block_size'] in SMALL",
}
SOUND = ("sound", "cosh")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Run the contract on all of them at once.

    Returns:
        What was printed, and for each row the tests that passed and those that failed.
    """
    report = tmp_path_factory.mktemp("contract") / "report.xml"
    options = ["-k", "planted_ or found", "--config-dir", str(FOLDER), "--tb=line"]
    options += [f"--junitxml={report}", "-p", "no:cacheprovider"]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    printed = subprocess.run(
        [sys.executable, "-m", "pytest", *CONTRACT, *options],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    passed, failed = defaultdict(set), defaultdict(set)
    for case in ElementTree.parse(report).iter("testcase"):
        test, _, parameters = case.attrib["name"].partition("[")
        name = parameters.partition("planted_")[2].rstrip("]").split("-")[0]
        bad = case.find("failure") is not None or case.find("error") is not None
        (failed if bad else passed)[name].add(test)
    return printed, passed, failed


def test_every_file_is_expected_to_do_something():
    files = {path.stem.removeprefix("planted_") for path in FOLDER.glob("attention/*.yaml")}
    assert files == {*FAULTS, *WARNINGS, *SOUND}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "property_"), FAULTS.items(), ids=list(FAULTS))
def test_the_property_meant_for_a_fault_catches_it(outcome, fault, property_):
    _, passed, failed = outcome
    assert property_ in failed[fault]
    assert "test_declarations_are_yes_or_no" in passed[fault]  # the row was built


@pytest.mark.slow
@pytest.mark.parametrize(("name", "message"), WARNINGS.items(), ids=list(WARNINGS))
def test_what_may_be_meant_is_only_warned_about(outcome, name, message):
    printed, passed, failed = outcome
    assert message in printed and name in printed
    assert passed[name] and not failed[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_sound_rows_pass_every_property(outcome, name):
    _, passed, failed = outcome
    assert not failed[name]
    assert set(FAULTS.values()) <= passed[name]
    assert "test_every_row_is_found" in passed[""]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["nothing_there", "hidden"])
def test_a_folder_that_adds_nothing_is_refused(tmp_path, folder):
    attention = tmp_path / folder / "attention"
    attention.mkdir(parents=True)
    if folder == "hidden":  # configs/attention would win
        (attention / "softmax.yaml").write_text("_target_: outside.Sound\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *CONTRACT, "--config-dir", str(attention.parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "no attention" in run.stdout + run.stderr or "exist already" in run.stdout + run.stderr
