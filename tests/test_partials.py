"""What a configuration names to be called later is called without Hydra."""

import sys
from functools import partial, wraps
from inspect import unwrap

import pytest
from hydra.utils import instantiate

from macformer.partials import without_hydra
from macformer.runs import cell
from macformer.training.lightning_module import ClassificationModule

CLIP = "clip={_target_: torch.nn.utils.clip_grad_norm_, _partial_: true, max_norm: 1.0}"


def test_arguments_stay():
    divide = {"_target_": "operator.floordiv", "_args_": [7], "_partial_": True}
    function = without_hydra(instantiate(divide))
    assert type(function) is partial
    assert function(2) == 3


def test_what_is_no_partial_stays_as_it_is():
    assert without_hydra(divmod) is divmod


@pytest.mark.parametrize("step", ["eager", "captured"])
def test_steps_of_a_run_call_nothing_of_hydra(make_run, monkeypatch, step):
    files = set()

    def watched(method):
        @wraps(unwrap(method))  # Lightning reads the names of arguments
        def run(*arguments):
            sys.setprofile(lambda frame, *_: files.add(frame.f_code.co_filename))
            try:
                return method(*arguments)
            finally:
                sys.setprofile(None)

        return run

    for name in ("training_step", "validation_step", "test_step"):
        monkeypatch.setattr(
            ClassificationModule, name, watched(getattr(ClassificationModule, name))
        )
    _, run_dir = make_run("attention=rfa", "ppsbn=with", f"step={step}", CLIP)
    assert cell.run(run_dir)
    assert any(file.endswith("clip_grad.py") for file in files)
    assert [file for file in files if "/hydra/" in file] == []
