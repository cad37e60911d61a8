"""What a run leaves in its folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor


@pytest.fixture
def last_weights() -> Callable[[Path], dict[str, Tensor]]:
    """Return the function from a run's folder to the weights it ended with."""

    def of(run_dir: Path) -> dict[str, Tensor]:
        path = run_dir / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True)["state_dict"]

    return of
