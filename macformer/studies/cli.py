"""Command line of the studies: ``macformer-study study=speed size=smoke``."""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from macformer.runs.identity import register_resolver

register_resolver()


@hydra.main(config_path="pkg://configs", config_name="study", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run a study, or render one that was measured; a user's mistake gives one line."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes into the progress bar
    from macformer.runs.build import ConfigError  # torch takes seconds, and --help does not need it
    from macformer.studies.runner import StudyError, render_study, run_study

    GlobalHydra.instance().clear()  # for studies to compose cells of the tables
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        files = (render_study if cfg.render else run_study)(cfg, folder)
    except (StudyError, ConfigError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print((folder / "table.md").read_text())
    print("wrote " + ", ".join(map(str, files)))


if __name__ == "__main__":
    main()
