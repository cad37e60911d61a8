"""Where classes and functions of the user's own are found."""

import sys
from collections.abc import Sequence


def make_importable(folders: Sequence[str]) -> None:
    """Let modules beside the user's configurations be imported, after all others."""
    sys.path.extend(folder for folder in folders if folder not in sys.path)
