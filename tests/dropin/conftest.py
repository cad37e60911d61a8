"""Small models with random weights, so large that attention is far from an average."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

DIM, HEADS, BATCH, LENGTH = 12, 2, 3, 11


@pytest.fixture
def x() -> Tensor:
    return torch.randn(BATCH, LENGTH, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def padding() -> Tensor:
    mask = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    mask[0, 7:] = mask[2, 4:] = True
    return mask


def sharpened(model: nn.Module) -> nn.Module:
    """Enlarge the weights, so that attention is far from an average."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model


@pytest.fixture
def make_attention() -> Callable[..., nn.Module]:
    """Return the function that builds torch's module of several heads."""

    def make(**options) -> nn.Module:
        torch.manual_seed(0)
        return sharpened(nn.MultiheadAttention(DIM, HEADS, **options))

    return make


@pytest.fixture
def make_encoder() -> Callable[..., nn.Module]:
    """Return the function that builds torch's encoder of some layers."""

    def make(num_layers: int = 2) -> nn.Module:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, batch_first=True, dropout=0.0)
        return sharpened(nn.TransformerEncoder(layer, num_layers))

    return make


TOKENS, VOCAB = 17, 50  # of texts for models of transformers
# At transformers' own 0.02 attention is so flat that an average passes for it.
SHARP = {"initializer_range": 0.2}
SIZES = {
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 28,
    **SHARP,
}
TEXT = {"vocab_size": VOCAB, "max_position_embeddings": 64, "pad_token_id": 0, **SIZES}
SPECIAL = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
TEXTS = {
    "Bert": TEXT,
    "Roberta": TEXT,
    "Albert": {**TEXT, "embedding_size": 6},
    "Electra": {**TEXT, "embedding_size": 20},
    "DistilBert": {
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "dim": 20,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 28,
        **SHARP,
    },
    "ModernBert": {**TEXT, **SPECIAL, "local_attention": 8, "global_attn_every_n_layers": 2},
    "NomicBert": TEXT,
    "EuroBert": {**TEXT, **SPECIAL, "num_key_value_heads": 1},
}
IMAGE = {"image_size": 16, "patch_size": 4, **SIZES}
IMAGES = {"ViT": IMAGE, "SiglipVision": IMAGE}


@pytest.fixture
def sizes() -> dict[str, float]:
    """What most configurations of transformers call the sizes of a model."""
    return dict(SIZES)


@pytest.fixture(params=[*TEXTS, *IMAGES])
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of model; a test of some kinds is parametrised by them."""
    return request.param


@pytest.fixture
def make_model() -> Callable[..., nn.Module]:
    """Return the function from a kind to a model of transformers."""
    transformers = pytest.importorskip("transformers")

    def make(kind: str, *, head: str = "Model", **changes) -> nn.Module:
        torch.manual_seed(0)
        options = {**TEXTS, **IMAGES}[kind]
        config = getattr(transformers, f"{kind}Config")(**{**options, **changes})
        return getattr(transformers, kind + head)(config).eval()

    return make


@pytest.fixture
def make_inputs() -> Callable[[str], dict[str, Tensor]]:
    """Return the function from a kind to two texts, the first of them padded, or two images."""

    def make(kind: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        if kind in IMAGES:
            return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
        mask = torch.ones(2, TOKENS, dtype=torch.long)
        mask[0, 11:] = 0
        ids = torch.randint(3, VOCAB, (2, TOKENS), generator=generator)
        return {"input_ids": ids, "attention_mask": mask}

    return make


@pytest.fixture
def states() -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    """Return the function from a model and its inputs to the states of what is not padding."""

    def of(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            out = model(**inputs)[0]
        return out[inputs["attention_mask"].bool()] if "attention_mask" in inputs else out

    return of
