"""Train and test one cell, or launch a sweep.

macformer-train task=listops attention=rmfa_exp ppsbn=with
macformer-train -m task=listops,text attention=softmax,rmfa_exp ppsbn=with,without seed=0,1,2
"""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from macformer.runs.process import run_composed


@hydra.main(config_path="pkg://configs", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run one cell; the cells of a sweep are run by ``macformer.runs.sweep.RunSweep``."""
    if not run_composed(cfg) and HydraConfig.get().mode == RunMode.RUN:
        sys.exit(1)


if __name__ == "__main__":
    main()
