"""Draw 16 generated Pathfinder images of each class at 32, 64 and 128 pixels.

python scripts/pathfinder_contact_sheet.py docs/pages/images/pathfinder.png
"""

import argparse

import numpy as np
from PIL import Image

from tasks.pathfinder.generate import generate_pathfinder

SIZES = (32, 64, 128)
NUM_PER_CLASS = 16
NUM_COLUMNS = 16
TILE = 128
BORDER = 2
GREY = 96


def draw_class(images: np.ndarray) -> np.ndarray:
    """Tile images, enlarged to one common size by repeating their pixels."""
    scale = TILE // images.shape[1]
    enlarged = images.repeat(scale, axis=1).repeat(scale, axis=2)
    framed = np.pad(enlarged, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)), constant_values=GREY)
    rows = framed.reshape(-1, NUM_COLUMNS, *framed.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    blocks = []
    for size in SIZES:
        chunks = generate_pathfinder(
            2 * NUM_PER_CLASS, size=size, seed=arguments.seed, num_workers=1
        )
        images, labels = map(np.concatenate, zip(*chunks, strict=True))
        blocks += [draw_class(images[labels == label]) for label in (1, 0)]
    Image.fromarray(np.concatenate(blocks)).save(arguments.path, optimize=True)


if __name__ == "__main__":
    main()
