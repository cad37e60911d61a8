"""Choose features from a model's own queries and keys: the cheapest that meet an error.

macformer-features checkpoint=outputs/runs/<cell> error=0.05
"""

import math
import shlex
import sys
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from torch import nn

from macformer.attention import RMFA, samplers
from macformer.attention.inputs.guard import bound_dot
from macformer.features.calls import core_attentions, record_attention
from macformer.features.compare import compare
from macformer.features.search import (
    Choice,
    Inputs,
    Kernel,
    SearchError,
    find_dot_bound,
    kernel_of,
    prepare_inputs,
    search,
)
from macformer.measuring import check_device
from macformer.record import CHECKPOINTS_NAME, CONFIG_NAME, read_config
from macformer.runs.allowed import (
    COUNT,
    FOLDER,
    NULL,
    POSITIVE,
    TIMED,
    check,
    either,
    list_of,
    one_of,
)
from macformer.runs.build import build_model, first_validation_batches, without_start
from macformer.runs.checkpoint import CheckpointError, load_weights
from macformer.runs.config import VERSION_BASE, run_main
from macformer.runs.hydra_bridge import output_folder
from macformer.runs.overrides import write_override
from macformer.training.objectives import to_device
from macformer.whole_file import replaced

WEIGHTS = ("best", "last", "start")
SAMPLERS = ("optimal", "code", "iid")
BOUND = "${bounds.input_norm}"  # what ppsbn says, of the run that takes the choice
ALLOWED = {
    "checkpoint": FOLDER,
    "weights": one_of(*WEIGHTS),
    "error": POSITIVE,
    "num_batches": COUNT,
    "batch_size": COUNT,
    "num_draws": COUNT,
    "num_features": list_of(COUNT),
    "sampler": list_of(one_of(*SAMPLERS)),
    "max_degree": list_of(either(NULL, COUNT)),
    "rounds": COUNT,
    "device": TIMED,
    "threads": COUNT,
}


@hydra.main(config_path="pkg://configs", config_name="features", version_base=VERSION_BASE)
def features(cfg: DictConfig) -> None:
    """Print the candidates, and write the best as an attention."""
    folder = output_folder()
    try:
        table, text = choose(cfg)
    except (ValueError, OSError, MissingMandatoryValue) as error:
        print(f"macformer-features: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    print(table.to_markdown(index=False, floatfmt=".3g"))
    if text is None:
        print(f"nothing here meets an error of {cfg.error:g}; try more num_features or max_degree")
        sys.exit(1)
    path = folder / "attention" / "rmfa_chosen.yaml"
    for target, content in (
        (path, text),
        (folder / "table.md", table.to_markdown(index=False, floatfmt=".3g") + "\n"),
    ):
        with replaced(target) as file:
            file.write(content.encode())
    run_dir, _ = find_checkpoint(Path(str(cfg.checkpoint)), cfg.weights)
    print(f"\n{text}\n{describe_command(folder, read_config(run_dir))}")


def describe_command(folder: Path, run: DictConfig) -> str:
    """Return the command that trains with the choice in a folder, as the run was trained.

    What the attention names may be in the user's folders that the run was composed from.
    """
    options = ["--config-dir", str(folder)]
    users = [f"file://{path}" for path in run.paths.get("config_dirs") or [] if path != str(folder)]
    if users:
        options.append(write_override("hydra.searchpath", users))
    return f"macformer-train {shlex.join(options)} attention=rmfa_chosen ..."


def main() -> None:
    """Run the command; a mistake of the user gives one line and exit code 2."""
    run_main(features, command="macformer-features")


def choose(cfg: DictConfig) -> tuple[pd.DataFrame, str | None]:
    """Measure all candidates on the model's queries and keys.

    Returns:
        The candidates that meet the error, cheapest first, or all where none does; then what the
        model has now, the exact kernel and softmax. And the attention file of the first candidate,
        None where none meets the error.

    Raises:
        OptionError: If an option has a value that it cannot have.
        SearchError: If the checkpoint does not exist, or its model has no attention with a kernel.
    """
    check(cfg, ALLOWED)
    check_device(cfg.device)
    torch.set_num_threads(cfg.threads)
    run_dir, path = find_checkpoint(Path(str(cfg.checkpoint)), cfg.weights)
    run = read_config(run_dir)
    torch.manual_seed(run.seed)
    model = load_model(run, path).to(cfg.device).eval()
    attentions = core_attentions(model)
    if not attentions:
        raise SearchError(
            f"{run.cell} has no layer of mixer=attention and model=transformer, and so no queries "
            "and keys to choose features for; of an existing model macformer-inspect takes them"
        )
    attention = attentions[0]  # of every layer: they differ in what they drew and learnt alone
    kernel = kernel_of(attention)
    batches, _ = first_validation_batches(
        run, num_batches=cfg.num_batches, batch_size=cfg.batch_size
    )
    calls = [
        call for batch in batches for call in record_attention(model, to_device(batch, cfg.device))
    ]
    inputs = prepare_inputs(calls, num_layers=len(attentions))
    dot_bound = _find_bound(attention, run, inputs)
    found = _search_all(inputs, kernel, dot_bound, cfg)
    met = [choice for choice in found if choice.error <= cfg.error]
    table = compare(met or found, attentions, inputs, kernel, cfg)
    text = describe_choice(met[0], run, kernel, dot_bound, attention) if met else None
    return table, text


def find_checkpoint(path: Path, weights: str) -> tuple[Path, Path | None]:
    """Return a run's folder and its checkpoint, None for the weights at the start.

    Raises:
        SearchError: If there is no such run or no such checkpoint.
    """
    run_dir = path.parent.parent if path.suffix == ".ckpt" else path
    if not (run_dir / CONFIG_NAME).exists():
        raise SearchError(f"{run_dir} is not the folder of a run: it has no {CONFIG_NAME}")
    if path == run_dir and weights == "start":
        return run_dir, None
    checkpoint = run_dir / CHECKPOINTS_NAME / f"{weights}.ckpt" if path == run_dir else path
    if not checkpoint.exists():
        raise SearchError(f"{checkpoint} does not exist; weights=start takes an untrained model")
    return run_dir, checkpoint


def load_model(run: DictConfig, checkpoint: Path | None) -> nn.Module:
    """Build a run's classifier, with the weights of a checkpoint if there is one.

    Raises:
        SearchError: If the checkpoint cannot be read.
    """
    model = build_model(run if checkpoint is None else without_start(run))
    if checkpoint is not None:
        try:
            load_weights(model, checkpoint)
        except CheckpointError as error:
            raise SearchError(str(error)) from error
    return model


def _find_bound(attention: nn.Module, run: DictConfig, inputs: list[Inputs]) -> float:
    """Return the bound that the attention of the written file will draw its features for."""
    if isinstance(attention, RMFA):
        return attention.dot_bound
    own = run.attention
    norm = own.get("input_norm", run.bounds.input_norm) if own.get("scale") is None else None
    head_dim = inputs[0].query.shape[-1]
    known, _ = bound_dot(head_dim=head_dim, input_norm=norm, guard=own.get("guard"))
    return find_dot_bound(inputs) if math.isinf(known) else known


def _search_all(
    inputs: list[Inputs], kernel: Kernel, dot_bound: float, cfg: DictConfig
) -> list[Choice]:
    found = [
        search(
            inputs,
            kernel,
            getattr(samplers, name),
            max_degree=degree,
            dot_bound=dot_bound,
            num_features=cfg.num_features,
            error=float(cfg.error),
            num_draws=cfg.num_draws,
        )
        for name, degree in product(cfg.sampler, cfg.max_degree)
    ]
    choices = [choice for choice in found if choice is not None]
    return sorted(choices, key=lambda choice: (choice.columns, choice.num_features))


def describe_choice(
    choice: Choice, run: DictConfig, kernel: Kernel, dot_bound: float, attention: nn.Module
) -> str:
    """Write a choice as an attention file, with all that the run's attention has."""
    own = OmegaConf.to_container(run.attention)
    assert isinstance(own, dict)
    ours = {"_target_": f"macformer.attention.kernels.{kernel.name}"}
    whole = own if isinstance(attention, RMFA) else _estimate(own, ours, dot_bound)
    whole |= {
        "num_features": choice.num_features,
        "sampler": {
            "_target_": f"macformer.attention.samplers.{choice.sampler}",
            "_partial_": True,
        },
    }
    if choice.max_degree is not None:
        whole["kernel"] = {
            "_target_": "macformer.attention.kernels.truncated",
            "max_degree": choice.max_degree,
            "kernel": whole.get("kernel", ours),
        }
    if whole.get("input_norm") == OmegaConf.select(run, "bounds.input_norm"):
        whole["input_norm"] = BOUND
    head = f"# error over signal {choice.error:.2g} on the queries and keys of {run.cell}\n"
    return head + OmegaConf.to_yaml(OmegaConf.create(whole))


def _estimate(exact: dict[Any, Any], kernel: dict[str, Any], dot_bound: float) -> dict[Any, Any]:
    """Return the random features that estimate an exact attention, but for how they are drawn."""
    return {
        "_target_": "macformer.attention.RMFA",
        "_partial_": True,
        "kernel": exact.get("kernel", kernel),
        "per_head": False,
        "input_norm": exact.get("input_norm", BOUND),
        "guard": exact.get("guard"),
        "assumed_dot": float(f"{dot_bound:.3g}"),
        "scale": exact.get("scale"),
    }
