"""Load a model of transformers that was saved with another attention.

Saving is ``model.save_pretrained(folder)``: the attention's parameters and random features are in
the model's state, and its row is in the model's configuration.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from macformer.dropin.replace import replace_attention
from macformer.dropin.rows import NAMED, Factory
from macformer.dropin.sites import DropinError

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def load(
    folder: str | Path,
    *,
    attention: Factory | None = None,
    config_dirs: Sequence[str | Path] = (),
) -> Any:
    """Load a model with the attention that it was saved with, on the CPU, in evaluation mode.

    Its own ``from_pretrained`` refuses such a folder: it would build softmax, and leave the
    features and scales of the attention out.

    Args:
        attention: The factory, where the model was saved with one that no name stands for.
        config_dirs: Folders of rows of your own, as ``--config-dir``.

    Raises:
        DropinError: If the folder has no replaced attention, or its weights do not fit.
    """
    import transformers  # pyright: ignore[reportMissingImports]

    folder = Path(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    row = getattr(config, "macformer", None)
    if row is None:
        raise DropinError(f"{folder} has no replaced attention; load it by from_pretrained")
    if attention is None and row["attention"] is None:
        raise DropinError(f"{folder} was saved with an attention without a name; give attention")
    named = {} if attention else {key: row[key] for key in NAMED if key != "attention"}
    config._attn_implementation = None  # softmax, until it is replaced
    model = getattr(transformers, config.architectures[0])(config).to(config.dtype)
    replace_attention(
        model,
        attention or row["attention"],
        config_dirs=config_dirs,
        layers=row["layers"],
        max_seq_len=row["max_seq_len"],
        **named,
    )
    _fill(model, _read(folder), folder)
    return model.eval()


def _read(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]

    index = folder / _INDEX
    if not index.exists():
        return load_file(folder / _WEIGHTS)
    files = set(json.loads(index.read_text())["weight_map"].values())
    return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}


def _fill(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Load a state in which tied tensors may stand once."""
    result = model.load_state_dict(state, strict=False)
    own = model.state_dict(keep_vars=True)
    there = {id(own[name]) for name in state if name in own}
    missing = [name for name in result.missing_keys if id(own[name]) not in there]
    if missing or result.unexpected_keys:
        raise DropinError(
            f"{folder} is of another model: missing {missing}, unexpected {result.unexpected_keys}"
        )
