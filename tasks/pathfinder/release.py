"""Read Pathfinder as Long Range Arena released it.

pathfinder32/curv_contour_length_14/imgs/0/sample_0.png
pathfinder32/curv_contour_length_14/metadata/0.npy      text, in spite of its name:
    imgs/0 sample_0.png 0 1 ...                         folder, file, number, label, ...
"""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tasks.errors import DataError, Unavailable
from tasks.sources.content import list_files

# Long Range Arena's "hard", the one whose results are published.
DIFFICULTY = "curv_contour_length_14"

_LABELS = {"0": 0, "1": 1}


class Picture(NamedTuple):
    path: Path
    label: int


def list_pictures(folder: Path) -> list[Picture]:
    """Return what the metadata files list, in the order of their numbers.

    Raises:
        DataError: Naming the first line that is not as it should be.
    """
    paths = list_files(folder, ["metadata/*.npy"])
    files = sorted(paths, key=lambda path: (len(path.stem), path.stem))
    if not files:
        raise Unavailable(f"no metadata in {folder}")
    return [picture for file in files for picture in _read_metadata(file, folder)]


def read_picture(path: Path, *, size: int) -> UInt8[np.ndarray, "size size"]:
    """Return the grey values of a picture.

    Raises:
        DataError: If it is damaged or of another size.
    """
    try:
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"))
    # Pillow raises SyntaxError, ValueError or OSError for damaged files.
    except Exception as error:
        raise DataError(f"{path} is not a picture: {error}") from error
    if grey.shape != (size, size):
        raise DataError(f"{path} is {grey.shape[1]} x {grey.shape[0]}, not {size} x {size}")
    return grey


def _read_metadata(file: Path, folder: Path) -> list[Picture]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text") from error
    pictures = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) < 4 or fields[3] not in _LABELS:
            raise DataError(f"{file}, line {number} is not a folder, a file, a number and a label")
        relative = PurePosixPath(fields[0], fields[1])
        if relative.is_absolute() or ".." in relative.parts:
            raise DataError(f"{file}, line {number} leads out of {folder}: {relative}")
        path = folder / relative
        if not path.is_file():
            raise Unavailable(f"{path}, listed in {file.name}, is missing")
        pictures.append(Picture(path, _LABELS[fields[3]]))
    return pictures
