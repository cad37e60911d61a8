"""Answer a question about the method with a table, a plot and a CSV.

macformer-study study=speed size=smoke
macformer-study study=speed size=smoke render=true
"""

import os
import sys

import hydra
from omegaconf import DictConfig

from macformer.runs.config import VERSION_BASE, run_main
from macformer.runs.hydra_bridge import output_folder
from macformer.runs.hydra_messages import one_line
from macformer.runs.importing import make_importable

_failed: list[str] = []  # studies of this call


@hydra.main(config_path="pkg://configs", config_name="study", version_base=VERSION_BASE)
def study(cfg: DictConfig) -> None:
    """Run a study, or render one that was measured."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes into the progress bar
    from macformer.studies.runner import render_study, run_study  # torch takes seconds

    make_importable(cfg.paths.config_dirs)
    folder = output_folder()
    try:
        files = (render_study if cfg.render else run_study)(cfg, folder)
    except (ValueError, OSError) as error:
        print(f"macformer-study: {one_line(error)}", file=sys.stderr)
        _failed.append(cfg.study.name)
        return
    print((folder / "table.md").read_text())
    print("wrote " + ", ".join(map(str, files)))


def main() -> None:
    """Run the command; a mistake of the user gives one line and exit code 2."""
    run_main(study, command="macformer-study")
    if _failed:  # of a multirun, whose other studies have gone on
        sys.exit(2)


if __name__ == "__main__":
    main()
