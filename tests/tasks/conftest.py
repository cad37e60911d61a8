"""Small folders that look like what people have downloaded, and a plain data module."""

import pickle
import struct
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import configs
import macformer.runs.config  # noqa: F401  (the resolver of paths)
from tasks.feeding.data_module import TaskDataModule
from tasks.pathfinder import generate as generate_pathfinder

REVIEWS = {"train": 20, "test": 6}
PICTURES = {"train": 30, "test": 7}
PAIRS = {"train": 11, "validation": 5, "test": 3}
DRAWINGS = 13


def write_aclimdb(root: Path) -> Path:
    """aclImdb/ with as many negative as positive reviews; each has a text of its own."""
    for split, num_reviews in REVIEWS.items():
        for name, opinion in (("neg", "naïf"), ("pos", "très bien")):
            folder = root / "aclImdb" / split / name
            folder.mkdir(parents=True)
            for i in range(num_reviews // 2):
                text = f"{split} review no. {i}: {opinion}! " * (i + 1)
                (folder / f"{i}_7.txt").write_text(text, encoding="utf-8")
    return root / "aclImdb"


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 did, and as the official files have them."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def dump_as_python2(path: Path, content: object) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)


def write_cifar(root: Path) -> Path:
    """cifar-10-batches-py/ with random pictures, some of whose pixels are black."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        num_rows = PICTURES["test"] if name == "test_batch" else PICTURES["train"] // 5
        pixels = rng.integers(256, size=(num_rows, 3072), dtype=np.uint8)
        pixels.reshape(num_rows, 3, 1024)[:, :, ::97] = 0
        labels = rng.integers(10, size=num_rows).tolist()
        content = {b"batch_label": b"a batch", b"labels": labels, b"data": pixels}
        dump_as_python2(folder / name, content)
    return folder


def write_aan(root: Path) -> Path:
    """tsv_data/ with papers that take part in several pairs."""
    (root / "aan" / "tsv_data").mkdir(parents=True)
    for split, num_pairs in PAIRS.items():
        lines = []
        for i in range(num_pairs):
            first, second = i % 3, (i + 1) % 5
            texts = (f"{split} paper {n}, naïvely parsed. " * (n + 1) for n in (first, second))
            lines.append("\t".join((f"{i % 2}.0", f"P{first}", f"P{second}", *texts)) + "\n")
        name = "eval" if split == "validation" else split
        path = root / "aan" / "tsv_data" / f"new_aan_pairs.{name}.tsv"
        path.write_text("".join(lines), encoding="utf-8")
    return root / "aan"


def prepare_own(base: str, data_dir: Path, **options: Any) -> Path:
    """Prepare files of one's own with the options of a task, as its base in YAML passes them on."""
    folder = Path(configs.__path__[0]) / "task"
    bases = [OmegaConf.load(folder / f"{name}.yaml") for name in ("_own", base)]
    cfg = OmegaConf.create({"task": OmegaConf.merge(*bases, options)})
    return hydra.utils.instantiate(cfg.task.prepare)(data_dir)


@pytest.fixture(name="prepare_own")
def _prepare_own():
    return prepare_own


@pytest.fixture(name="dump_as_python2")
def _dump_as_python2():
    return dump_as_python2


@pytest.fixture
def aclimdb(tmp_path) -> Path:
    return write_aclimdb(tmp_path)


@pytest.fixture
def cifar(tmp_path) -> Path:
    return write_cifar(tmp_path)


@pytest.fixture
def aan(tmp_path) -> Path:
    return write_aan(tmp_path)


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> dict[str, Path]:
    """The folders of the tasks that are not generated, not to be changed."""
    root = tmp_path_factory.mktemp("sources")
    return {"text": write_aclimdb(root), "image": write_cifar(root), "retrieval": write_aan(root)}


@pytest.fixture(scope="module")
def few_images_per_chunk():
    """Draw Pathfinder in small chunks; a whole one takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate_pathfinder, "_IMAGES_PER_CHUNK", 16)
        yield


@pytest.fixture
def listops_release(tmp_path) -> Path:
    """listops-1000/ with three rows per split."""
    folder = tmp_path / "listops" / "listops-1000"
    folder.mkdir(parents=True)
    for split, digit in (("train", 1), ("val", 2), ("test", 3)):
        (folder / f"basic_{split}.tsv").write_text(
            "Source\tTarget\n"
            f"( ( ( [MAX {digit} ) 9 ) ] )\t9\n"
            f"( ( ( [SM {digit} ) 4 ) ] )\t{digit + 4}\n"
            f"{digit}\t{digit}\n"
        )
    return tmp_path / "listops"


@pytest.fixture
def pathfinder_release(tmp_path) -> Path:
    """pathfinder32/curv_contour_length_14/ with random pictures; the metadata are text."""
    folder = tmp_path / "lra" / "pathfinder32" / "curv_contour_length_14"
    (folder / "metadata").mkdir(parents=True)
    rng = np.random.default_rng(3)
    for number in (0, 1):
        images = folder / "imgs" / str(number)
        images.mkdir(parents=True)
        lines = []
        for i in range(number, DRAWINGS, 2):
            Image.fromarray(rng.integers(256, size=(32, 32), dtype=np.uint8)).save(
                images / f"sample_{i}.png"
            )
            lines.append(f"imgs/{number} sample_{i}.png {i} {i % 2} 0.0 14 2 1.8\n")
        (folder / "metadata" / f"{number}.npy").write_text("".join(lines))
    return tmp_path / "lra"


@pytest.fixture
def plain_data_module() -> partial[TaskDataModule]:
    """Build the data module of given data and sizes, with every option of its batches off."""
    return partial(
        TaskDataModule,
        accumulate=1,
        seed=0,
        device_resident=False,
        trim_batches=False,
        pad_to_multiple_of=1,
        bucket_by_length=False,
    )
