"""Load a model of transformers that was saved with another attention.

Saving is ``model.save_pretrained(folder)``: the attention's parameters and random features are in
the model's state, and its row is in the model's configuration.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from macformer.dropin.replace import replace_attention
from macformer.dropin.rows import NAMED, Factory
from macformer.dropin.sites import CHILD, DropinError

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
    if not (folder / "config.json").is_file():  # or transformers would look for it elsewhere
        raise DropinError(f"{folder} holds no saved model: there is no config.json")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    row = getattr(config, "macformer", None)
    if row is None:
        raise DropinError(f"{folder} has no replaced attention; load it by from_pretrained")
    if attention is None and row["attention"] is None:
        raise DropinError(f"{folder} was saved with an attention without a name; give attention")
    named = {} if attention else {key: row[key] for key in NAMED if key != "attention"}
    config._attn_implementation = None  # softmax, until it is replaced
    state = _read(folder)
    inserted = {name: tensor for name, tensor in state.items() if _is_inserted(name)}
    model, found = getattr(transformers, config.architectures[0]).from_pretrained(
        None,
        config=config,
        state_dict={name: tensor for name, tensor in state.items() if name not in inserted},
        output_loading_info=True,
    )
    _check(folder, missing=found["missing_keys"], unexpected=found["unexpected_keys"])
    replace_attention(
        model,
        attention or row["attention"],
        config_dirs=config_dirs,
        layers=row["layers"],
        max_seq_len=row["max_seq_len"],
        **named,
    )
    result = model.load_state_dict(_renamed(inserted, model), strict=False)
    missing = filter(_is_inserted, result.missing_keys)
    _check(folder, missing=missing, unexpected=result.unexpected_keys)
    return model.eval()


def _is_inserted(name: str) -> bool:
    return f".{CHILD}." in name


def _read(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]

    index, files = folder / _INDEX, {_WEIGHTS}
    if index.exists():
        files = set(json.loads(index.read_text())["weight_map"].values())
    if missing := sorted(file for file in files if not (folder / file).is_file()):
        raise DropinError(f"{folder} lacks weights: {', '.join(missing)}")
    return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}


def _renamed(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Name tensors as the model does.

    transformers saves them under the names of the checkpoints that it reads, where layers are
    called otherwise in some.
    """
    from transformers import (  # pyright: ignore[reportMissingImports]
        conversion_mapping,
        core_model_loading,
    )

    conversions = conversion_mapping.get_model_conversion_mapping(model)
    renamings = [x for x in conversions if isinstance(x, core_model_loading.WeightRenaming)]
    own = model.state_dict().keys()

    def rename(name: str) -> str:
        for renaming in renamings:
            name, _ = renaming.rename_source_key(name)
        return name

    return {name if name in own else rename(name): tensor for name, tensor in state.items()}


def _check(folder: Path, *, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    absent, left = sorted(missing), sorted(unexpected)
    if absent or left:
        raise DropinError(f"{folder} is of another model: missing {absent}, unexpected {left}")
