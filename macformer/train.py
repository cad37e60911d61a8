"""Train and test one cell, or launch a sweep.

macformer-train task=listops attention=rmfa_exp ppsbn=with
macformer-train -m task=listops,text attention=softmax,rmfa_exp ppsbn=with,without seed=0,1,2
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from macformer.identity import register_resolver

CONCURRENT_LAUNCHERS = ("joblib",)  # several cells at once on one machine

register_resolver()


@hydra.main(config_path="pkg://configs", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run one cell in this process, or each cell of a sweep in a process of its own."""
    from macformer import cell, sweep  # torch takes seconds, and --help does not need it

    hydra_cfg = HydraConfig.get()
    if hydra_cfg.runtime.choices["hydra/launcher"] in CONCURRENT_LAUNCHERS:
        cfg.exclusive = False
    run_dir = Path(hydra_cfg.runtime.output_dir)
    OmegaConf.save(cfg, run_dir / cell.CONFIG_NAME, resolve=True)
    if hydra_cfg.mode == RunMode.MULTIRUN:
        sweep.run_in_process(run_dir, overwrite=cfg.overwrite)
    elif not cell.run(run_dir):
        sys.exit(1)


if __name__ == "__main__":
    main()
