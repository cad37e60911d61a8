"""Looking at a model before training: errors, times and what follows from them."""

from functools import partial
from itertools import count

import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from macformer.attention import SoftmaxAttention, UniformAttention
from macformer.dropin import cli, inspection, replace_attention
from macformer.dropin.cli import main
from macformer.dropin.inspection import (
    draw,
    inspect_layers,
    limit_of,
    load_batches,
    summarise,
)
from macformer.dropin.sites import inserted_attention
from macformer.plotting import save
from macformer.runs.build import build_model
from macformer.runs.config import compose

DIM, HEADS, BATCH, LENGTH = 12, 2, 3, 11
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)


class Encoder(nn.Module):
    """Two layers of torch's, under the signature of this harness."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, inputs, key_padding_mask):
        return self.layers(inputs, src_key_padding_mask=key_padding_mask)


def batches(number: int) -> list[dict[str, torch.Tensor]]:
    mask = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    mask[0, 7:] = True
    return [
        {"inputs": torch.randn(BATCH, LENGTH, DIM), "key_padding_mask": mask} for _ in range(number)
    ]


def test_softmax_has_no_error_and_the_mean_of_the_values_has_one():
    torch.manual_seed(0)
    model = Encoder()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    rows = {
        "same": lambda max_seq_len, **sizes: SOFTMAX(**sizes),
        "mean": lambda max_seq_len, **sizes: UniformAttention(**sizes),
    }
    layers = inserted_attention(model)
    first = next(iter(layers))
    learnt = {"learnt": {first: UniformAttention(num_heads=HEADS, head_dim=DIM // HEADS)}}
    lines, whole = inspect_layers(model, batches(3), rows, learnt=learnt, max_seq_len=LENGTH)
    assert len(lines) == 2 * (2 * 3 + 1)  # two batches behind the first; softmax and two rows twice
    assert len(layers) == 2 and set(lines.loc[lines["row"] == "learnt", "layer"]) == {first}
    errors = lines.groupby("row")["error"].agg(["min", "max"])
    assert errors.loc["same"].max() == 0
    torch.testing.assert_close(errors.loc["mean"].tolist(), [1.0, 1.0])
    torch.testing.assert_close(errors.loc["learnt"].tolist(), [1.0, 1.0])
    table = summarise(lines, whole, layers=list(layers), error=0.5).set_index("row")
    assert table.isna().sum(axis=1)["learnt"] == 1
    assert whole > 0 and (lines["seconds"] > 0).all()


def test_layers_that_share_an_attention_count_with_all_their_time(monkeypatch):
    """Called twice in a pass, at a second each: two of the pass's seconds, in one line a batch."""

    class Shared(Encoder):
        def forward(self, inputs, key_padding_mask):
            layer = self.layers.layers[0]
            return layer(layer(inputs, None, key_padding_mask), None, key_padding_mask)

    model = Shared()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH, layers=[0])
    ticks = count()
    monkeypatch.setattr(inspection, "now", lambda device: float(next(ticks)))
    lines, _ = inspect_layers(model, batches(3), {}, learnt={}, max_seq_len=LENGTH)
    assert lines["seconds"].tolist() == [2.0, 2.0]
    assert limit_of(lines, 10.0)[0] == pytest.approx(0.2)


def test_rows_without_a_mask_are_inspected_whole():
    torch.manual_seed(0)
    model = Encoder()
    replace_attention(model, SOFTMAX, max_seq_len=LENGTH)
    rows = {"mean": lambda max_seq_len, **sizes: UniformAttention(**sizes)}
    bare = [{"inputs": batch["inputs"]} for batch in batches(2)]
    full = [{**batch, "key_padding_mask": torch.zeros(BATCH, LENGTH).bool()} for batch in bare]
    errors = [
        inspect_layers(model, given, rows, learnt={}, max_seq_len=LENGTH)[0]["error"].tolist()
        for given in (bare, full)
    ]
    assert len(errors[0]) == 4
    assert errors[0] == pytest.approx(errors[1], abs=1e-6)


def test_the_summary_follows_from_times_and_errors():
    """Of 10 s softmax takes 2 in each of two layers; a row takes half, and is right in one.

    The model has four layers, the first and the third of which are kept as they are.
    """
    lines = pd.DataFrame(
        [
            {"row": "fast", "layer": "b", "error": 0.04, "seconds": 1.0},
            {"row": "fast", "layer": "d", "error": 0.81, "seconds": 1.0},
            {"row": "softmax", "layer": "b", "error": 0.0, "seconds": 2.0},
            {"row": "softmax", "layer": "d", "error": 0.0, "seconds": 2.0},
        ]
    )
    (row,) = summarise(lines, 10.0, layers=list("abcd"), error=0.5).to_dict("records")
    assert row == {
        "row": "fast",
        "layer 1": pytest.approx(0.2),
        "layer 3": pytest.approx(0.9),
        "time / softmax": 0.5,
        "all: times as fast": pytest.approx(10 / 8),
        "replace": "1",
        "these: times as fast": pytest.approx(10 / 9),
    }
    assert limit_of(lines, 10.0) == (pytest.approx(0.4), pytest.approx(10 / 6))


def test_a_pause_in_one_batch_is_no_time_of_a_row():
    """Three batches, in the second of which everything else had its turn."""
    lines = pd.DataFrame(
        [
            {"row": row, "layer": "a", "error": 0.0, "seconds": seconds + 90.0 * (batch == 1)}
            for batch in range(3)
            for row, seconds in (("fast", 1.0), ("softmax", 2.0))
        ]
    )
    (row,) = summarise(lines, 8.0, layers=["a"], error=0.5).to_dict("records")
    assert (row["time / softmax"], row["all: times as fast"]) == (0.5, pytest.approx(8 / 7))
    assert limit_of(lines, 8.0) == (0.25, pytest.approx(8 / 6))


def test_a_row_of_many_options_leaves_room_for_the_plot(tmp_path):
    """Warnings are errors: matplotlib warns where a legend takes all the room."""
    row = "attention=kernelized_exp_scaled ppsbn=with attention.guard=8.0 attention.scale=null " * 2
    lines = [{"row": row, "layer": name, "error": 0.5, "seconds": 1.0} for name in "bd"]
    figure = draw(pd.DataFrame(lines), layers=list("abcd"))
    assert list(figure.axes[0].get_xticks()) == [1, 3]
    save(figure, tmp_path / "errors")


def test_a_model_is_inspected_on_a_task(tmp_path, capsys):
    pytest.importorskip("transformers")
    sizes = "hidden_size: 20, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 28"
    options = [
        "attention=uniform",
        "model.layers=[1]",
        f"model.config={{model_type: bert, {sizes}, initializer_range: 0.2}}",
        "task=listops_short",
        "task.num_examples={train: 64, validation: 20, test: 20}",
        "task.max_len=24",
        "task.min_len=4",
        f"paths.data_dir={tmp_path / 'data'}",
    ]
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    started = build_model(compose("model=encoder", "recipe=finetune", *options)).state_dict()
    weights = {f"model.{name}": value for name, value in started.items()}
    torch.save({"state_dict": weights, "global_step": 1, "callbacks": {}}, run / "best.ckpt")
    options.append(f"model.start={run.parent}")
    assert main([*options, f"--output={tmp_path / 'out'}"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "table.md",
        "lines.csv",
        "errors.png",
        "errors.svg",
    }
    assert "attention=rmfa_exp_scaled ppsbn=with" in capsys.readouterr().out
    lines = pd.read_csv(tmp_path / "out" / "lines.csv")
    uniform = lines.loc[lines["row"] == "attention=uniform", "error"]
    torch.testing.assert_close(uniform.tolist(), [1.0] * len(uniform))
    learnt = lines[lines["row"] == "attention=uniform learnt"]
    assert learnt["layer"].nunique() == 1
    torch.testing.assert_close(learnt["error"].tolist(), [1.0] * len(learnt))


class Reader(nn.Module):
    """A classifier whose encoder is torch's, for tokens of a task."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, DIM)
        self.encoder, self.head = Encoder(), nn.Linear(DIM, 10)

    def forward(self, inputs, key_padding_mask=None):
        return self.head(self.encoder(self.embedding(inputs), key_padding_mask)[:, 0])


def test_a_seed_decides_what_is_measured_and_the_table_says_where(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "build_model", lambda cfg: Reader())
    sizes = ["task.num_examples={train: 4, validation: 8, test: 4}", "task.max_len=12"]
    options = ["model=transformer", "task=listops_short", *sizes, "task.min_len=4", "recipe=smoke"]
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump({**GOOD, "rows": ["attention=rfa"]}))
    options += [f"--config={tmp_path / 'rows.yaml'}", f"paths.data_dir={tmp_path}"]
    errors = []
    for seed in (1, 2, 1):
        assert main([*options, f"seed={seed}", f"--output={tmp_path / 'out'}"]) == 0
        lines = pd.read_csv(tmp_path / "out" / "lines.csv")
        errors.append(lines.loc[lines["row"] != "softmax", "error"].tolist())
    assert errors[0] == errors[2] and errors[0] != errors[1]
    threads = torch.get_num_threads()
    said = f"Measured on cpu, whatever trainer.accelerator says, with {threads} threads and seed 1."
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "out" / "table.md").read_text().splitlines()


def test_a_mistake_is_one_line(capsys):
    assert main(["task=listops_short", "model.path=nowhere", "task=nope"]) == 2
    assert capsys.readouterr().err.startswith("macformer-inspect: ")


GOOD = {"rows": ["attention=uniform"], "num_batches": 2, "batch_size": 4, "error": 0.5}
WRONG = {
    "rows": [None, [], "attention=uniform", [1], [""], {"a": 1}],
    "num_batches": [1, 0, -1, "all", 2.5, None],
    "batch_size": [0, "four", 1.0, [4]],
    "error": [-0.1, "small", None, float("nan"), True],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in WRONG.items() for v in values])
def test_a_wrong_value_is_refused_before_any_work(tmp_path, capsys, monkeypatch, key, value):
    monkeypatch.setattr(cli, "compose", None)
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump({**GOOD, key: value}))
    assert main([f"--config={tmp_path / 'rows.yaml'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"macformer-inspect: {key} is ") and "; it must be " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows, num_batches"),
        ("[1, 2]", "holds no options"),
        ("rows: [", "is not YAML"),
        ("rows: ${nowhere}\nnum_batches: 2\nbatch_size: 4\nerror: 1", "is not YAML"),
        (yaml.safe_dump({**GOOD, "batches": 3}), "nothing reads batches in"),
    ],
)
def test_a_file_without_the_options_is_one_line(tmp_path, capsys, text, message):
    (tmp_path / "rows.yaml").write_text(text)
    assert main([f"--config={tmp_path / 'rows.yaml'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_validation_split_of_one_batch_is_refused(tmp_path):
    sizes = "task.num_examples={train: 8, validation: 4, test: 4}", "task.max_len=12"
    options = [*sizes, "task.min_len=4", f"paths.data_dir={tmp_path}"]
    cfg = compose("task=listops_short", "recipe=smoke", *options)
    with pytest.raises(ValueError, match="batch_size is 4, and listops_short has 4 rows of"):
        load_batches(cfg, num_batches=2, batch_size=4)


def test_a_model_without_attention_of_another_library_is_one_line(tmp_path, capsys):
    sizes = "task.num_examples={train: 4, validation: 4, test: 4}", "task.max_len=12"
    options = ["model=transformer", "task=mqar_small", *sizes, "recipe=smoke"]
    options += ["task.num_pairs=2", f"paths.data_dir={tmp_path}"]
    assert main([*options, f"--output={tmp_path / 'out'}"]) == 2
    assert "SequenceEncoder has no attention that can be replaced" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
