"""What model each protocol gives each task: its size by a closed form, its parts and dropout."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import configs
from macformer.models import (
    ClsPooling,
    LearnedPositions,
    MeanPooling,
    PaddedMeanPooling,
    PixelEmbedding,
    SinusoidalPositions,
    TokenEmbedding,
    UnmaskedMeanPooling,
)
from macformer.training import classify

TASKS = ("listops", "text", "retrieval", "image", "pathfinder")


class Size(NamedTuple):
    """What the parameters of a classifier are counted from.

    Args:
        outside: Rows of width D outside the layers: tokens, learnt positions, CLS.
        head: Widths from the pooled vector to the classes.
    """

    outside: int
    D: int
    layers: int
    qkv: int
    ffn: int
    head: tuple[int, ...]
    bias: bool = True

    def count(self) -> int:
        attention = 4 * self.D * self.qkv + self.bias * (3 * self.qkv + self.D)
        ffn = 2 * self.D * self.ffn + self.ffn + self.D
        layers = self.layers * (attention + ffn + 4 * self.D)
        head = sum((n + 1) * m for n, m in zip(self.head, self.head[1:], strict=False))
        return self.outside * self.D + layers + 2 * self.D + head


def skyformer(tokens: int, positions: int, *head: int) -> Size:
    return Size(tokens + positions, D=64, layers=2, qkv=64, ffn=128, head=head)


PIXELS = 32 * 32
LEGACY_SIZES = {  # the published code's own counts: its tables have unused rows
    "listops": skyformer(32, 2048, 64, 128, 10),
    "text": skyformer(512, 4096, 64, 128, 2),
    "retrieval": skyformer(512, 4096, 4 * 64, 128, 2),
    "image": skyformer(256, PIXELS, 64, 128, 10),
    "pathfinder": skyformer(512, PIXELS, 64, 128, 2),
}
SKYFORMER_SIZES = {
    "listops": skyformer(16, 2000, 64, 128, 10),
    "text": skyformer(257, 4000, 64, 128, 2),
    "retrieval": skyformer(257, 4000, 4 * 64, 128, 2),
    "image": skyformer(257, PIXELS, 64, 128, 10),
    "pathfinder": skyformer(257, PIXELS, 64, 128, 2),
}
AMOS_SIZES = {  # a pixel's embedding has a weight, a bias and a mark in place of a table
    "listops": Size(17, 512, 6, 512, 2048, (512, 10)),
    "text": Size(136, 512, 6, 512, 2048, (512, 512, 2)),
    "retrieval": Size(98, 128, 4, 128, 512, (4 * 128, 128, 2)),
    "image": Size(3, 64, 3, 64, 128, (64, 64, 10)),
    "pathfinder": Size(3, 128, 4, 128, 128, (128, 2)),
    "pathx": Size(3, 128, 4, 128, 128, (128, 2)),
}
SIZES = {
    "skyformer": SKYFORMER_SIZES,
    "smoke": SKYFORMER_SIZES,
    "finetune": {  # with model=transformer Skyformer's sizes, and a linear head
        "listops": skyformer(16, 2000, 64, 10),
        "text": skyformer(257, 4000, 64, 2),
        "retrieval": skyformer(257, 4000, 4 * 64, 2),
    },
    "skyformer_legacy": LEGACY_SIZES,
    "schoenbat_code": LEGACY_SIZES,
    "lra_code": {
        "listops": Size(17 + 1, 512, 4, 512, 1024, (512, 1024, 10), bias=False),
        "text": Size(257 + 1, 256, 4, 256, 1024, (256, 1024, 2), bias=False),
        "retrieval": Size(257 + 1, 128, 4, 128, 512, (2 * 128, 512, 256, 2), bias=False),
        "image": Size(256 + PIXELS + 1 + 1, 128, 1, 64, 128, (128, 128, 10), bias=False),
        "pathfinder": Size(256, 32, 4, 16, 32, (32, 32, 2), bias=False),
        "pathfinder64": Size(256 + 64**2 + 1 + 1, 32, 2, 32, 32, (32, 32, 2), bias=False),
        "pathx": Size(256 + 128**2, 32, 1, 16, 32, (32, 32, 2), bias=False),
    },
    "lra_paper": {
        "listops": Size(17 + 1, 512, 6, 512, 2048, (512, 2048, 10), bias=False),
        "text": Size(257 + 1, 512, 6, 512, 2048, (512, 2048, 2), bias=False),
        "retrieval": Size(257 + 1, 128, 4, 128, 512, (4 * 128, 512, 2), bias=False),
        "image": Size(256 + PIXELS + 1 + 1, 64, 3, 64, 128, (64, 128, 10), bias=False),
        "pathfinder": Size(256, 128, 4, 128, 128, (128, 128, 2), bias=False),
        "pathx": Size(256 + 128**2, 128, 4, 128, 128, (128, 128, 2), bias=False),
    },
    "s4_style": AMOS_SIZES,
    "spt": AMOS_SIZES,
    "laptop": {
        "listops_short": skyformer(16, 100, 64, 128, 10),
        "text": skyformer(257, 512, 64, 128, 2),
        "retrieval": skyformer(257, 512, 4 * 64, 128, 2),
        "image": skyformer(3, PIXELS, 64, 128, 10),
        "pathfinder": skyformer(3, PIXELS, 64, 128, 2),
        "mqar_small": skyformer(66, 16, 64, 128, 32),
        "selective_copy_small": skyformer(18, 72, 64, 128, 15),
    },
}


@pytest.mark.parametrize("recipe", SIZES)
def test_every_block_resolves_whatever_the_task(recipe, composed):
    for task in TASKS:
        OmegaConf.to_container(composed(recipe, task).recipe, resolve=True)


def test_every_recipe_is_tested():
    names = {path.stem for path in (Path(configs.__path__[0]) / "recipe").glob("*.yaml")}
    assert names == set(SIZES)


@pytest.mark.by_recipe(SIZES)
def test_number_of_parameters(recipe, task, expected, composed):
    with torch.device("meta"):
        model = instantiate(composed(recipe, task).model)
    assert sum(p.numel() for p in model.parameters()) == expected.count()


def test_one_count_in_digits():
    """Skyformer on ListOps: 2,016 rows of 64; two layers of 33,472; a norm; a head of 9,610."""
    assert SIZES["skyformer"]["listops"].count() == 2016 * 64 + 2 * 33_472 + 128 + 9_610 == 205_706


@pytest.mark.by_recipe(
    {  # of the states, of softmax's weights
        "skyformer": {task: (0.1, 0.0) for task in TASKS},
        "skyformer_legacy": {task: (0.1, 0.1) for task in TASKS},
        "lra_code": {"text": (0.1, 0.1), "image": (0.3, 0.2), "pathfinder": (0.2, 0.1)},
        "s4_style": {"text": (0.0, 0.0)},
        "spt": {"text": (0.0, 0.0), "pathx": (0.0, 0.0)},
        "laptop": {"text": (0.0, 0.0), "image": (0.0, 0.0)},
    }
)
def test_dropout(recipe, task, expected, composed):
    with torch.device("meta"):
        model = instantiate(composed(recipe, task).model)
    encoder = model.encoder
    attentions = [layer.mixer.attention for layer in encoder.layers]
    assert {(encoder.dropout.p, attention.dropout) for attention in attentions} == {expected}


@pytest.mark.by_recipe(
    {
        "skyformer": {task: (TokenEmbedding, LearnedPositions, MeanPooling) for task in TASKS},
        "skyformer_legacy": {
            task: (TokenEmbedding, LearnedPositions, PaddedMeanPooling) for task in TASKS
        },
        "lra_code": {
            "text": (TokenEmbedding, SinusoidalPositions, ClsPooling),
            "image": (TokenEmbedding, LearnedPositions, ClsPooling),
            "pathfinder": (TokenEmbedding, SinusoidalPositions, UnmaskedMeanPooling),
            "pathx": (TokenEmbedding, LearnedPositions, UnmaskedMeanPooling),
        },
        "s4_style": {
            "text": (TokenEmbedding, SinusoidalPositions, MeanPooling),
            "image": (PixelEmbedding, SinusoidalPositions, MeanPooling),
        },
        "laptop": {
            "text": (TokenEmbedding, LearnedPositions, MeanPooling),
            "image": (PixelEmbedding, LearnedPositions, MeanPooling),
            "pathfinder": (PixelEmbedding, LearnedPositions, MeanPooling),
        },
    }
)
def test_parts_of_the_model(recipe, task, expected, composed):
    with torch.device("meta"):
        model = instantiate(composed(recipe, task).model)
    parts = (model.encoder.embedding, model.encoder.positions, model.pooling)
    assert tuple(map(type, parts)) == expected


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("recipe", SIZES)
def test_a_small_model_has_gradients_everywhere(recipe, task, composed):
    cfg = composed(recipe, task)
    encoder = {"ffn_dim": 8, "num_layers": 1, "max_seq_len": 16}
    small = {"mixer": {"qkv_dim": 8}, "model": {"embed_dim": 8, "encoder": encoder}}
    model = instantiate(OmegaConf.merge(cfg, small).model)
    shape = (3, 2, 16) if cfg.task.paired else (3, 16)
    batch = {
        "inputs": torch.randint(1, cfg.task.vocab_size, shape),
        "key_padding_mask": (torch.arange(16) > 11).expand(shape),
        "labels": torch.tensor([0, 1, 1]),
    }
    loss, *_ = classify(model, batch)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
