"""Whether the data are still those that a finished run was trained on.

A run is named before its data need to be there: a sweep names all of its cells first, and its first
cell prepares the data for the others. So the digest of the data cannot be in the hash that names
the run's folder, or the run would have another name once they are there. It stands in metrics.json,
and both must agree for a run to be the same: a run that goes on is held to it when it starts, and a
finished one here.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from macformer.record import read_metrics
from macformer.runs.hydra_bridge import calling_folder
from macformer.runs.importing import make_importable


class DataNow:
    """The data that runs would find now, each looked for once."""

    def __init__(self) -> None:
        self._digests: dict[str, str | None] = {}

    def change(self, cfg: DictConfig, run_dir: Path) -> str | None:
        """Say that a run is finished, but on other data than there are now; None if it is not so.

        Nothing is said of data that are not there, nor of what cannot be prepared: a finished run
        needs no data.
        """
        metrics = read_metrics(run_dir) or {}
        before = metrics.get("data_digest")
        if metrics.get("status") != "finished" or before is None:
            return None
        now = self._digest(cfg, metrics.get("data_folder"))
        if now in (None, before):
            return None
        return f"finished before, on other data (digest {before}, now {now})"

    def _digest(self, cfg: DictConfig, folder_name: str | None) -> str | None:
        from macformer.runs.build import build_data  # torch takes seconds

        made_of: Any = OmegaConf.to_container(cfg.data, resolve=True)
        key = json.dumps([made_of["prepare"], made_of["data_dir"], folder_name], default=str)
        if key not in self._digests:
            make_importable([str(calling_folder())])
            try:
                data: Any = build_data(cfg)
                self._digests[key] = data.digest_now(folder_name)
            except (ValueError, OSError):
                self._digests[key] = None
        return self._digests[key]
