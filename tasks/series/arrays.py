"""Series from NumPy archives: x (series, steps) or (series, steps, channels), and y."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tasks.errors import DataError
from tasks.series.recorded import Recorded, of_series, trimmed

_ARRAYS = ("x", "y", "lengths")


def read_arrays(paths: Sequence[Path], *, decider: str | None) -> Recorded:
    """Read archives that hold x and y, perhaps lengths, and the array that decides the split.

    Without lengths, steps at the end at which all channels are NaN are no steps.

    Args:
        decider: The array that decides the split of each series.
    """
    series, labels, names, groups = [], [], [], []
    for path in paths:
        arrays = _open(path, decider=decider)
        x, y = arrays["x"], arrays["y"]
        x = x[..., None] if x.ndim == 2 else x
        _check(path, x, y)
        _check_beside(path, arrays, x, decider=decider)
        lengths = arrays.get("lengths")
        for i, values in enumerate(x.astype(np.float32)):
            series.append(trimmed(values) if lengths is None else values[: int(lengths[i])])
            labels.append(str(y[i]))
            if not labels[-1].strip():
                raise DataError(f"{path}, series {i} has no label")
            groups.append(str(arrays[decider][i]) if decider else "")
            names.append(f"{path}, series {i}")
    return of_series(series, labels, names=names, groups=groups)


def _open(path: Path, *, decider: str | None) -> dict[str, np.ndarray]:
    wanted = {*_ARRAYS, *filter(None, [decider])}
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files if name in wanted}
            names = archive.files
    except Exception as error:  # whatever the bytes of a damaged file lead to
        what = "holds Python objects, which are not loaded" if "pickle" in str(error) else error
        raise DataError(f"{path} is no archive of arrays: {what}") from error
    if not {"x", "y"} <= found.keys():
        raise DataError(f"{path} has the arrays {', '.join(names)}; it must have x and y")
    if decider and decider not in found:
        raise DataError(f"{path} has no array {decider!r}; it has {', '.join(names)}")
    return found


def _check(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 3 or y.shape != x.shape[:1]:
        raise DataError(
            f"{path}: x is of shape {x.shape}, y of {y.shape}; they must be (series, steps) or "
            "(series, steps, channels), and (series,)"
        )
    if not np.issubdtype(x.dtype, np.number) or np.iscomplexobj(x):
        raise DataError(f"{path}: x is of type {x.dtype}; it must hold real numbers")
    with np.errstate(over="ignore"):
        if np.isinf(x.astype(np.float32)).any():
            raise DataError(f"{path}: x has values that are not finite in 32 bits")
    if y.dtype.kind not in "iuUb":
        raise DataError(f"{path}: y is of type {y.dtype}; labels are whole numbers or texts")


def _check_beside(
    path: Path, arrays: Mapping[str, np.ndarray], x: np.ndarray, *, decider: str | None
) -> None:
    """Check the arrays that an archive may have beside x and y, an item for each series."""
    for name in filter(None, ["lengths" if "lengths" in arrays else None, decider]):
        if arrays[name].shape != x.shape[:1]:
            raise DataError(
                f"{path}: {name} is of shape {arrays[name].shape}; it must be {x.shape[:1]}, as y"
            )
    lengths = arrays.get("lengths", np.zeros(0, int))
    if lengths.dtype.kind not in "iu" or (lengths < 0).any() or (lengths > x.shape[1]).any():
        raise DataError(f"{path}: lengths are not those of {len(x)} series of {x.shape[1]}")
