"""Whether what a run measures is of its device alone, over all calls that its steps come from.

A run that goes on counts the steps of earlier calls among its own: what disturbed them disturbs its
figures, and figures of two devices are of neither.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from macformer.callbacks import DeviceUse
from macformer.record import NOT_EXCLUSIVE, write_metrics
from macformer.runs.build import Run
from macformer.runs.devices import Claim


def sharing_so_far(
    cfg: DictConfig, record: Mapping[str, Any], claim: Claim | None, *, device: str, resumes: bool
) -> str | None:
    """Say why a run that starts now, or goes on, has not its device to itself; None if it has.

    Args:
        record: What the last call left of the run.
        device: That of this call.
        resumes: Whether steps of earlier calls count.
    """
    reasons = [None if cfg.exclusive else NOT_EXCLUSIVE, claim and claim.sharing]
    if resumes:
        began_on = record.get("device")
        moved = f"it began on {began_on}" if began_on not in (None, device) else None
        reasons = [record.get("sharing"), moved, *reasons]
    return next(filter(None, reasons), None)


@contextmanager
def sharing_kept(run_dir: Path, record: Mapping[str, Any], claim: Claim) -> Iterator[None]:
    """Let a call that goes on know who shared the device with one that was stopped."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # of a full disk
            write_metrics(run_dir, {**record, "sharing": record["sharing"] or claim.sharing})
        raise


def sharing(
    built: Run, record: Mapping[str, Any] | None, claim: Claim | None
) -> dict[str, bool | str | None]:
    """Say at the end whether others have used the device meanwhile, and how that is known."""
    use = built.callback(DeviceUse)
    reasons = [(record or {}).get("sharing"), claim and claim.sharing, use and use.others]
    reason = next(filter(None, reasons), None)
    return {"exclusive": reason is None, "sharing": reason}
