"""Train and test one cell, or launch a sweep.

    macformer-train task=listops_short recipe=smoke attention=rmfa_exp ppsbn=with
    macformer-train -m task=listops,text attention=softmax,rmfa_exp ppsbn=with,without seed=0,1,2

Everything goes to outputs/. The same command again finds what is finished, and resumes what is not.
"""

# A run: this module -> runs.process (a folder and a process for it) -> runs.cell ->
# runs.train_and_test -> runs.build. A sweep: Hydra's multirun -> runs.sweep, which
# configs/train.yaml names as a callback -> runs.plan -> the cells.

import os
import sys

import hydra
from omegaconf import DictConfig

from macformer.runs.config import VERSION_BASE, run_main
from macformer.runs.hydra_bridge import is_multirun
from macformer.runs.process import run_composed


@hydra.main(config_path="pkg://configs", config_name="train", version_base=VERSION_BASE)
def train(cfg: DictConfig) -> None:
    """Run one cell; the cells of a sweep are run by ``macformer.runs.sweep.RunSweep``."""
    if not run_composed(cfg) and not is_multirun():
        sys.exit(1)


def main() -> None:
    """Run the command; a mistake of the user gives one line and exit code 2."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # each of its processes would take itself for the run
        print(
            "macformer-train: torchrun is not needed, as a run starts its own processes: "
            "trainer.devices=2 trainer.strategy=ddp",
            file=sys.stderr,
        )
        sys.exit(2)
    run_main(train, command="macformer-train")


if __name__ == "__main__":
    main()
