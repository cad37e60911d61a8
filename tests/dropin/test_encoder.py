"""``model=encoder``: an encoder of transformers as the model of a run."""

import json
import shutil
import sys

import pytest
import torch

from macformer.evaluate import evaluate
from macformer.models import FirstPooling
from macformer.record import read_metrics
from macformer.runs.build import build_model
from macformer.runs.cell import run
from macformer.runs.config import ConfigError, compose

SIZES = "hidden_size: 20, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 28"
BERT = f"model.config={{model_type: bert, {SIZES}, initializer_range: 0.2}}"
SMALL = ("model=encoder", "recipe=finetune", "task=listops_short", "max_seq_len=24")

needs_transformers = pytest.fixture(
    lambda: pytest.importorskip("transformers"), autouse=False, name="transformers"
)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def batch(num_classes_of_ids: int = 16):
    inputs = torch.randint(1, num_classes_of_ids, (3, 24))
    mask = torch.zeros(3, 24, dtype=torch.bool)
    mask[0, 9:] = True
    return inputs.masked_fill(mask, 0), mask


@pytest.mark.parametrize("ppsbn", ["with", "without"])
def test_a_row_is_the_attention_of_every_layer(transformers, ppsbn):
    cfg = compose(*SMALL, BERT, "attention=rmfa_exp_scaled", f"ppsbn={ppsbn}")
    model = build_model(cfg).eval()
    layers = model.encoder.model.encoder.layer
    kinds = {type(layer.attention.self.macformer).__name__ for layer in layers}
    assert kinds == {"PPSBN" if ppsbn == "with" else "RMFA"}
    inputs, mask = batch()
    logits = model(inputs, mask)
    assert logits.shape == (3, 10)
    garbage = torch.where(mask, 7, inputs)
    torch.testing.assert_close(model(garbage, mask), logits, atol=0, rtol=0)
    short = model(inputs[:1, :9], mask[:1, :9])
    torch.testing.assert_close(short, logits[:1], atol=1e-5, rtol=1e-5)


def test_the_model_gets_the_ids_of_its_tokenizer(transformers):
    """Softmax in the place of its attention leaves the model what it was."""
    model = build_model(compose(*SMALL, BERT, "attention=softmax")).eval()
    inputs, mask = batch()
    states, _ = model.encoder(inputs, mask)
    own = model.encoder.model
    restored = transformers.BertModel(own.config)
    missing = restored.load_state_dict(own.state_dict())
    assert not missing.missing_keys
    restored.set_attn_implementation("sdpa")
    ids = torch.where(mask, own.config.pad_token_id, inputs - 1)
    expected = restored.eval()(input_ids=ids, attention_mask=(~mask).long())[0]
    torch.testing.assert_close(states[~mask], expected[~mask], atol=0, rtol=0)


def test_layers_with_softmax_keep_all_keys_and_values_of_a_sequence(transformers):
    sizes = {
        row: build_model(
            compose(*SMALL, BERT, f"attention={row}", "model.layers=[1]")
        ).encoder.state_size(24)
        for row in ("softmax", "none")
    }
    assert sizes == {"softmax": 2 * 2 * 24 * (10 + 10), "none": 2 * 24 * (10 + 10)}


def test_layers_that_share_one_attention_keep_their_own_each(transformers):
    config = BERT.replace("bert", "albert").replace("20,", "20, embedding_size: 6,")
    encoder = build_model(compose(*SMALL, config, "attention=softmax")).encoder.train()
    assert encoder.state_size(24) == 2 * 2 * 24 * (10 + 10)
    assert encoder.training


def test_special_tokens_of_a_larger_vocabulary_are_no_tokens_of_a_task(transformers):
    config = BERT.replace("bert", "modernbert")
    model = build_model(compose(*SMALL, config, "attention=softmax")).eval()
    assert model.encoder.model.config.pad_token_id is None
    inputs, mask = batch()
    logits = model(inputs, mask)
    assert logits.isfinite().all()
    short = model(inputs[:1, :9], mask[:1, :9])
    torch.testing.assert_close(short, logits[:1], atol=1e-5, rtol=1e-5)


def test_pairs_pass_through_one_encoder(transformers):
    cfg = compose(*SMALL, BERT, "task.paired=true", "attention=linear")
    inputs, mask = batch()
    logits = build_model(cfg)(torch.stack([inputs, inputs], 1), torch.stack([mask, mask], 1))
    assert logits.shape == (3, 10)


@pytest.mark.parametrize("attention", ["rmfa_exp", "softmax"])
def test_rows_without_padding_reach_attention_without_a_mask(transformers, attention):
    model = build_model(compose(*SMALL, BERT, f"attention={attention}")).eval()
    masks = []

    def keep(module, args, kwargs):
        masks.append(kwargs["key_padding_mask"])

    for layer in model.encoder.model.encoder.layer:
        layer.attention.self.macformer.register_forward_pre_hook(keep, with_kwargs=True)
    inputs = torch.randint(1, 16, (3, 24))
    logits = model(inputs)
    assert masks == [None, None]
    torch.testing.assert_close(model(inputs, torch.zeros_like(inputs, dtype=torch.bool)), logits)


@pytest.fixture
def folder(transformers, tmp_path):
    sizes = dict(pair.split(": ") for pair in SIZES.split(", "))
    config = transformers.BertConfig(vocab_size=15, **{k: int(v) for k, v in sizes.items()})
    transformers.BertModel(config).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_a_folder_gives_its_weights(transformers, folder):
    model = build_model(compose(*SMALL, f"model.path={folder}", "attention=rmfa_exp"))
    stored = transformers.BertModel.from_pretrained(folder)
    table = model.encoder.model.embeddings.word_embeddings.weight
    torch.testing.assert_close(table, stored.embeddings.word_embeddings.weight, atol=0, rtol=0)


def test_the_state_of_the_first_token_may_be_read(transformers):
    pooling = "{_target_: macformer.models.FirstPooling, _partial_: true}"
    model = build_model(compose(*SMALL, BERT, f"++recipe.default.pooling={pooling}"))
    assert isinstance(model.pooling, FirstPooling)
    inputs, mask = batch()
    states, _ = model.eval().encoder(inputs, mask)
    torch.testing.assert_close(model(inputs, mask), model.head(states[:, 0]))


def test_a_run_trains_resumes_and_is_a_row_of_the_tables(transformers, make_run):
    options = ("model=encoder", BERT, "attention=rmfa_exp_scaled", "ppsbn=with", "max_seq_len=24")
    _, run_dir = make_run(*options)
    assert run(run_dir)
    metrics = read_metrics(run_dir)
    assert metrics["status"] == "finished" and metrics["attention"] == "rmfa_exp_scaled"
    assert metrics["cost"]["flops"] > metrics["cost"]["state_size"] > 0
    start = f"model.start={run_dir}"
    model = build_model(compose("recipe=smoke", "task=listops_short", *options, start))
    saved = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, saved[f"model.{name}"], atol=0, rtol=0)


def test_a_run_is_scored_again_when_what_it_started_from_is_gone(transformers, make_run):
    options = ("model=encoder", BERT, "attention=rmfa_exp_scaled", "ppsbn=with", "max_seq_len=24")
    _, first = make_run(*options, folder="first")
    assert run(first)
    _, second = make_run(*options, f"model.start={first}", folder="second")
    assert run(second)
    accuracy = read_metrics(second)["accuracy"]["best"]["test"]
    shutil.rmtree(first)
    assert evaluate(second, checkpoint="best", split="test") == pytest.approx(accuracy)


def test_a_run_of_transfer_moves_the_attention_alone(transformers, make_run):
    options = (BERT, "attention=rmfa_exp_scaled", "ppsbn=with", "max_seq_len=24", "seed=3")
    cfg, run_dir = make_run("experiment=transfer", *options, "learning_rate=0.1")
    assert run(run_dir), (run_dir / "error.log").read_text()
    torch.manual_seed(3)
    first = build_model(cfg).state_dict()
    saved = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    scales = [name for name in first if name.endswith(("gamma", "beta", "log_scale"))]
    assert len(scales) == 2 * 3
    for name in scales:
        assert not torch.equal(saved[f"model.{name}"], first[name]), name
    for name in first.keys() - set(scales):
        torch.testing.assert_close(saved[f"model.{name}"], first[name], atol=0, rtol=0)


REFUSED = {
    "neither a folder nor a configuration": ((), "needs model.path=FOLDER, or model.config"),
    "no folder": (("model.path=nowhere",), "nowhere, which is no folder of a model"),
    "no model_type": (("model.config={hidden_size: 8}",), "has no model_type"),
    "more positions than there are": (
        (BERT.replace("20,", "20, max_position_embeddings: 9,"),),
        "padded_len is 24, and the model has positions for 9 tokens; use max_seq_len=9",
    ),
    "positions that are nobody's": (
        (BERT.replace("bert", "roberta").replace("20,", "20, max_position_embeddings: 25,"),),
        "padded_len is 24, and the model has positions for 23 tokens; use max_seq_len=23",
    ),
    "a token of its own in front": (
        (BERT, "++recipe.default.pooling={_target_: macformer.models.ClsPooling, _partial_: true}"),
        "use model.pooling._target_=macformer.models.FirstPooling",
    ),
    "ids of another tokenizer": (
        (BERT.replace("20,", "20, vocab_size: 99,"),),
        "with its tokenizer, task.tokenizer=FOLDER/tokenizer.json, it is 100",
    ),
    "a layer that is not there": ((BERT, "model.layers=[2]"), "no layer is 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(transformers, case):
    options, message = REFUSED[case]
    with pytest.raises(ConfigError) as refused:
        build_model(compose(*SMALL, *options))
    assert message in str(refused.value)


def test_a_folder_with_another_attention_is_no_start(transformers, folder):
    config = json.loads((folder / "config.json").read_text())
    config["macformer"] = {"attention": "rmfa_exp"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="was saved with another attention"):
        build_model(compose(*SMALL, f"model.path={folder}"))


def test_a_mixer_without_attention_is_refused_when_composing():
    with pytest.raises(ConfigError, match="takes an attention, and mixer=s4d has none"):
        compose(*SMALL, BERT, "mixer=s4d")


def test_without_transformers_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r'needs transformers: .*"macformer\[hf\]" \(in model\)$'):
        build_model(compose(*SMALL, BERT))
