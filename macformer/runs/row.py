"""The row of the tables that a cell belongs to, and which choices make one."""

from omegaconf import DictConfig, OmegaConf

from macformer.record import row_name

PLAIN = {"attention": "softmax", "ppsbn": "without", "rotary": "without"}  # what train.yaml chooses


def check_row(choices: DictConfig, *, _root_: DictConfig) -> str:
    """Return the name of a cell's row.

    Args:
        choices: What was chosen of each group.

    Raises:
        ValueError: If the mixer has no attention, and one was chosen all the same, or the model is
            made of layers that take nothing else.
    """
    if "attention" not in _root_.mixer:
        model = _root_.model
        if "attention" in model.keys() and OmegaConf.is_interpolation(model, "attention"):  # noqa: SIM118
            raise ValueError(
                f"model={choices['model']} takes an attention, and mixer={choices['mixer']} has "
                "none; leave mixer=attention"
            )
        for group, plain in PLAIN.items():
            if choices[group] != plain:
                raise ValueError(
                    f"{group}={choices[group]} has no effect under mixer={choices['mixer']}, "
                    f"which has no attention; leave {group}={plain}"
                )
    return row_name(dict(choices))
