"""Faulty attentions outside the project: the property meant for each fault catches it.

Each has its class in one module and one YAML, as a user's variant would.
"""

import os
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

MODULE = '''
import torch
from torch import nn

from macformer.attention import blank_padding


class Sound(nn.Module):
    """Linear attention through random softplus features, as it should be."""

    def __init__(self, *, num_heads, head_dim, num_features):
        super().__init__()
        self.register_buffer("projection", torch.randn(head_dim, num_features))

    def phi(self, x):
        return nn.functional.softplus(x @ self.projection)

    def forward(self, query, key, value, *, key_padding_mask=None):
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        phi_q, phi_k = self.phi(query), self.phi(key)
        if key_padding_mask is not None:
            padding = key_padding_mask[:, None, :, None]
            phi_k, value = phi_k.masked_fill(padding, 0), value.masked_fill(padding, 0)
        denominator = phi_q @ phi_k.sum(-2)[..., None]
        return phi_q @ (phi_k.mT @ value) / denominator.clamp(min=1e-6)


class MasksValuesOnly(Sound):
    def forward(self, query, key, value, *, key_padding_mask=None):
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[:, None, :, None], 0)
        return super().forward(query, key, value)


class TakesProjection(Sound):
    def __init__(self, *, num_heads, head_dim, projection):
        super().__init__(num_heads=num_heads, head_dim=head_dim, num_features=2)
        self.project = projection

    def phi(self, x):
        return nn.functional.softplus(self.project(x))


class Unregistered(Sound):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        plain = self.projection.double()
        del self.projection
        self.projection = plain

    def phi(self, x):
        return nn.functional.softplus(x @ self.projection.to(x.dtype))


class Transposed(Sound):
    def forward(self, query, key, value, *, key_padding_mask=None):
        return super().forward(query, key, value, key_padding_mask=key_padding_mask).mT


class SubtractsBatchMean(Sound):
    def forward(self, query, key, value, *, key_padding_mask=None):
        key = key - key.mean(0, keepdim=True)
        return super().forward(query, key, value, key_padding_mask=key_padding_mask)


class Oversized(Sound):
    def __init__(self, *, num_heads, head_dim, num_features):
        super().__init__(num_heads=num_heads, head_dim=head_dim, num_features=num_features)
        self.projection = nn.Parameter(torch.randn(head_dim, num_features))


class Detached(Sound):
    def forward(self, query, key, value, *, key_padding_mask=None):
        return super().forward(query, key.detach(), value, key_padding_mask=key_padding_mask)


class PrivateGenerator(Sound):
    def __init__(self, *, num_heads, head_dim, num_features):
        super().__init__(num_heads=num_heads, head_dim=head_dim, num_features=num_features)
        self.projection.normal_(generator=torch.Generator().manual_seed(7))


def cosh(degree):
    result = 1.0
    for n in range(2, degree + 1):
        result /= n
    return 0.0 if degree % 2 else result
'''

VARIANT = "{{_target_: outside.{name}, _partial_: true, num_features: {num_features}}}"
SHARED = """
_target_: outside.TakesProjection
_partial_: true
projection: {_target_: torch.nn.LazyLinear, out_features: 11}
"""
KERNEL = """
defaults: [_rmfa, _self_]
coefficients: {_target_: outside.cosh}
"""
CONTRACT = [
    str(Path(__file__).with_name(f"test_contract{x}.py")) for x in ("", "_state", "_device")
]
FAULTS = {  # the property that must fail; the last two only warn, because they are a user's choice
    "MasksValuesOnly": "test_padding_is_inert",
    "TakesProjection": "test_two_layers_share_no_tensor",
    "Unregistered": "test_a_checkpoint_reproduces_the_output",
    "Transposed": "test_output_has_the_shape_of_queries_and_values",
    "SubtractsBatchMean": "test_examples_are_independent",
    "Detached": "test_gradients_are_those_of_central_differences",
}
WARNINGS = {
    "Oversized": "more parameters than softmax",
    "PrivateGenerator": "the same whatever the seed",
}
SOUND = ("Sound", "cosh")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Run the contract on all variants at once.

    Returns:
        What was printed, and for each variant the tests that passed and those that failed.
    """
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside.py").write_text(MODULE)
    (folder / "attention").mkdir()
    yamls = {
        name: VARIANT.format(name=name, num_features=1031 if name == "Oversized" else 11)
        for name in (*FAULTS, *WARNINGS, "Sound")
    }
    yamls |= {"TakesProjection": SHARED, "cosh": KERNEL}
    for name, text in yamls.items():
        (folder / "attention" / f"planted_{name}.yaml").write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "pytest", *CONTRACT, "-k", "planted_ or found"]
    report = folder / "report.xml"
    printed = subprocess.run(
        [
            *command,
            "--config-dir",
            str(folder),
            f"--junitxml={report}",
            "-p",
            "no:cacheprovider",
        ],
        env=os.environ | {"PYTHONPATH": str(folder)},
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


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "property_"), FAULTS.items(), ids=list(FAULTS))
def test_the_property_meant_for_a_fault_catches_it(outcome, fault, property_):
    _, passed, failed = outcome
    assert property_ in failed[fault]
    assert passed[fault]  # the variant was built


@pytest.mark.slow
@pytest.mark.parametrize(("variant_", "message"), WARNINGS.items(), ids=list(WARNINGS))
def test_what_may_be_meant_is_only_warned_about(outcome, variant_, message):
    printed, passed, failed = outcome
    assert message in printed and variant_ in printed
    assert passed[variant_] and not failed[variant_]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_sound_variants_pass_every_property(outcome, name):
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
