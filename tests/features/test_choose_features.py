"""Choosing features: the cheapest that meet an error on a model's own queries and keys."""

import re
import shlex

import pytest
import torch
from omegaconf import OmegaConf

from macformer.attention import RMFA, Kernel, kernels, samplers
from macformer.attention.maclaurin.kernels import truncated
from macformer.features import cli
from macformer.features.calls import record_attention
from macformer.features.cli import (
    choose,
    describe_choice,
    describe_command,
    find_checkpoint,
    load_model,
)
from macformer.features.error import error_over_signal
from macformer.features.search import (
    Choice,
    Inputs,
    SearchError,
    find_dot_bound,
    kernel_of,
    measure_error,
    prepare_inputs,
)
from macformer.record import CONFIG_NAME, read_config
from macformer.runs.build import build_attention, build_model, first_validation_batches
from macformer.runs.config import compose
from macformer.runs.hydra_bridge import parse_overrides

SMALL = (
    "num_batches=1",
    "num_draws=2",
    "rounds=1",
    "num_features=[8,64,128]",
    "sampler=[optimal]",
    "max_degree=[2,null]",
)


def configure(checkpoint, *overrides):
    return compose(f"checkpoint={checkpoint}", *SMALL, *overrides, name="features")


def rmfa(kernel: Kernel) -> RMFA:
    return RMFA(
        num_heads=1,
        head_dim=7,
        num_features=8,
        kernel=kernel,
        sampler=samplers.optimal,
        per_head=False,
        input_norm=1.0,
        guard=None,
        assumed_dot=0.7,
        scale=None,
    )


@pytest.fixture
def run_dir(make_run):
    return make_run("attention=rmfa_exp", "ppsbn=with")[1]


def test_the_choice_meets_the_error_as_an_attention_of_its_own(run_dir, tmp_path):
    cfg = configure(run_dir, "weights=start", "error=0.25")
    table, text = choose(cfg)
    met = table["attention"].str.contains("degrees")
    assert met.sum() == 2 and (table.loc[met, "error / signal"] <= 0.25).all()
    assert table.loc[met, "columns"].is_monotonic_increasing
    assert (table["ms"] > 0).all() and (table["peak MiB"] > 0).all()

    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "rmfa_chosen.yaml").write_text(text)
    choices = ["attention=rmfa_chosen", "bounds.input_norm=1.0"]
    chosen = compose(*choices, config_dirs=[tmp_path])
    attention = build_attention(chosen, num_heads=2, head_dim=32, max_seq_len=64)
    assert attention.num_features == table["features"].iloc[0]
    run = read_config(run_dir)
    model = build_model(run)
    (batch,), _ = first_validation_batches(
        run, num_batches=cfg.num_batches, batch_size=cfg.batch_size
    )
    inputs = prepare_inputs(record_attention(model, batch), num_layers=2)
    assert measure_error(inputs, [attention]) < 2 * 0.25  # other weights, another draw


@pytest.mark.slow
def test_an_error_out_of_reach_leaves_no_choice(run_dir):
    """The table then says what the most features reach."""
    table, text = choose(configure(run_dir, "weights=start", "error=1e-6"))
    assert text is None
    best = table[table["attention"].str.contains("degrees")]
    assert (best["features"] == 128).all() and (best["error / signal"] > 1e-6).all()


@pytest.mark.parametrize("attention", ["kernelized_exp_scaled", "kernelized_exp", "softmax"])
def test_features_are_chosen_for_the_bound_that_their_file_gives(
    make_run, tmp_path, monkeypatch, attention
):
    _, run_dir = make_run(f"attention={attention}", "ppsbn=with")
    bounds = []

    def search(*args, dot_bound, **options):
        bounds.append(dot_bound)
        return find(*args, dot_bound=dot_bound, **options)

    find = cli.search
    monkeypatch.setattr(cli, "search", search)
    _, text = choose(configure(run_dir, "weights=start", "error=1e6", "max_degree=[null]"))
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "rmfa_chosen.yaml").write_text(text)
    chosen = compose("attention=rmfa_chosen", "ppsbn=with", config_dirs=[tmp_path])
    shapes = {"num_heads": 2, "head_dim": 32, "max_seq_len": 64}
    assert build_attention(chosen, **shapes).attention.dot_bound == pytest.approx(bounds[0])


@pytest.mark.slow
def test_a_softmax_model_gets_features_of_exp(make_run):
    _, run_dir = make_run("attention=softmax")
    cfg = configure(run_dir, "weights=start", "error=1e6", "max_degree=[null]")
    table, text = choose(cfg)
    assert "exact exp" in set(table["attention"])
    attention = OmegaConf.create(text)
    assert attention._target_ == "macformer.attention.RMFA" and attention.guard is None
    assert attention.kernel._target_ == "macformer.attention.kernels.exp"


OVERRIDES = ("attention.guard=0.3", "attention.per_head=true", "attention.kernel._target_=own.exp")


def test_the_file_is_all_that_the_run_had_but_for_what_was_chosen(make_run, tmp_path):
    """Of a run with options of its own; and of a run with that file, which must not name itself."""
    run, _ = make_run("attention=rmfa_exp", *OVERRIDES)
    attention = rmfa(kernels.exp())
    choice = Choice("code", None, 5, 24, 0.1, 3, attention.features)
    sampler = {"_target_": "macformer.attention.samplers.code", "_partial_": True}
    expected = OmegaConf.to_container(run.attention) | {"num_features": 24, "sampler": sampler}
    file = tmp_path / "attention" / "rmfa_chosen.yaml"
    file.parent.mkdir()
    for _ in range(2):
        file.write_text(describe_choice(choice, run, kernels.exp(), 0.3, attention))
        run = compose("attention=rmfa_chosen", "recipe=smoke", config_dirs=[tmp_path])
        assert OmegaConf.to_container(run.attention, resolve=True) == expected
    bounded = compose("attention=rmfa_chosen", "ppsbn=with", config_dirs=[tmp_path])
    assert bounded.attention.input_norm == 1.0


def test_the_command_names_the_folders_that_the_run_was_composed_from(tmp_path):
    users = [str(tmp_path / "my variants"), str(tmp_path / "more"), str(tmp_path)]
    run = OmegaConf.create({"paths": {"config_dirs": users}})
    words = shlex.split(describe_command(tmp_path, run))
    assert words[:3] == ["macformer-train", "--config-dir", str(tmp_path)]
    (option,) = parse_overrides(words[3:4])
    assert option.key_or_group == "hydra.searchpath"
    assert option.value() == [f"file://{path}" for path in users[:2]]
    run.paths.config_dirs = []
    assert "searchpath" not in describe_command(tmp_path, run)


def test_an_attention_without_a_kernel_is_refused(make_run):
    _, run_dir = make_run("attention=uniform")
    with pytest.raises(SearchError, match="UniformAttention has no kernel"):
        choose(configure(run_dir, "weights=start"))


@pytest.mark.parametrize(
    ("path", "weights", "reason"),
    [
        ("run", "best", "best.ckpt does not exist"),
        ("run/checkpoints/other.ckpt", "best", "other.ckpt does not exist"),
        ("nowhere", "best", "not the folder of a run"),
    ],
)
def test_a_missing_checkpoint_is_said_in_one_line(tmp_path, path, weights, reason):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG_NAME).touch()
    with pytest.raises(SearchError, match=reason) as error:
        find_checkpoint(tmp_path / path, weights)
    assert "\n" not in str(error.value)


def test_weights_come_from_the_checkpoint(make_run):
    cfg, run_dir = make_run("attention=rmfa_exp", "ppsbn=with")
    trained = build_model(cfg)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter)
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    state = {f"model.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 0, "callbacks": {}}, checkpoint)
    assert find_checkpoint(checkpoint, "best") == (run_dir, checkpoint)
    assert find_checkpoint(run_dir, "last") == (run_dir, checkpoint)
    loaded = load_model(cfg, checkpoint)
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_what_bounds_dot_products_is_of_tokens_alone():
    """Norms 2 and 3 of tokens of width 4: 2 * 3 / 2; padding has norms of its own."""
    query, key = (torch.full((2, 3, 5, 4), size / 2) for size in (2.0, 3.0))
    mask = torch.arange(5) >= torch.tensor([[2], [3]])
    for size in (0.0, 1e3):
        padded = [x.masked_fill(mask[:, None, :, None], size) for x in (query, key)]
        inputs = Inputs(0, *padded, value=key, key_padding_mask=mask, exact=key)
        assert find_dot_bound([inputs]) == pytest.approx(3.0)
    assert find_dot_bound([Inputs(0, query, key, key, None, key)]) == pytest.approx(3.0)


def test_truncated_series_by_hand():
    """1 + t + t^2 / 2."""
    cut = truncated(kernels.exp(), max_degree=2)
    assert [cut.coefficients(n) for n in range(5)] == [1, 1, 0.5, 0, 0]
    assert cut.closed_form is not None and cut.closed_form(torch.tensor(3.0)) == 1 + 3 + 9 / 2


def test_a_kernel_is_known_by_itself_and_not_by_its_name():
    """A user's ``log`` with a_n = 2^-2n is 1 / (1 - t / 4)."""
    found = kernel_of(rmfa(Kernel("log", lambda n: 0.25**n, None, 4.0)))
    t = torch.tensor(0.3)
    assert found.closed_form is not None
    torch.testing.assert_close(found.closed_form(t), 1 / (1 - t / 4))


def test_a_scale_stays_part_of_the_kernel(make_run):
    _, run_dir = make_run("attention=kernelized_exp_scaled", "ppsbn=with")
    cfg = configure(run_dir, "weights=start", "error=1e6", "num_features=[8]", "max_degree=[null]")
    _, text = choose(cfg)
    attention = OmegaConf.create(text)
    assert attention.scale == read_config(run_dir).attention.scale
    assert attention.guard == 2.0


def test_the_error_of_the_models_own_features_is_that_of_each_layer_by_its_own(run_dir):
    cfg = configure(run_dir, "weights=start", "error=1e6", "num_features=[8]", "max_degree=[null]")
    table, _ = choose(cfg)
    run = read_config(run_dir)
    torch.manual_seed(run.seed)
    model = build_model(run).eval()
    (batch,), _ = first_validation_batches(
        run, num_batches=cfg.num_batches, batch_size=cfg.batch_size
    )
    calls = record_attention(model, batch)
    own = [
        float(error_over_signal(call.out, x.exact, x.value, key_padding_mask=x.key_padding_mask))
        for call, x in zip(calls, prepare_inputs(calls, num_layers=2), strict=True)
    ]
    stated = table.set_index("attention").loc["the model's own", "error / signal"]
    assert len(own) == 2 and stated == pytest.approx(max(own), rel=1e-4)


def test_features_are_chosen_for_what_rotation_makes_of_queries(make_run):
    _, run_dir = make_run("attention=rmfa_exp", "ppsbn=with", "rotary=with")
    cfg = configure(run_dir, "weights=start", "error=1e6", "num_features=[8]", "max_degree=[null]")
    _, text = choose(cfg)
    assert OmegaConf.create(text).num_features == 8


def test_a_model_without_queries_and_keys_is_refused_in_one_line(make_run):
    _, run_dir = make_run("mixer=s4d")
    with pytest.raises(SearchError, match=r"no layer of mixer=attention and model=transformer"):
        choose(configure(run_dir, "weights=start"))


WRONG = {
    "weights=worst": "weights is worst; it must be best or last or start",
    "error=small": "error is small; it must be a number above 0",
    "error=0": "error is 0; it must be a number above 0",
    "error=null": "error is null; it must be a number above 0",
    "num_batches=0": "num_batches is 0; it must be a whole number of at least 1",
    "batch_size=1.5": "batch_size is 1.5; it must be a whole number",
    "num_draws=-1": "num_draws is -1; it must be a whole number",
    "num_features=64": "num_features is 64; it must be a list, each of it a whole number",
    "num_features=[]": "num_features is []; it must be a list, each",
    "num_features=[8,x]": "num_features is [8, 'x']; it must be a list, each",
    "sampler=optimal": "sampler is optimal; it must be a list, each of it optimal or code or iid",
    "sampler=[best]": "sampler is ['best']; it must be a list, each of it optimal or code or iid",
    "max_degree=[0]": "max_degree is [0]; it must be a list, each of it null or a whole number",
    "rounds=null": "rounds is null; it must be a whole number",
    "device=gpu": "device is gpu; it must be a device that can be timed, as cpu or cuda:0",
    "device=cuda:99": "device is cuda:99, which cannot be used here: ",
    "threads=many": "threads is many; it must be a whole number",
}


@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_value_is_refused_before_any_work(tmp_path, option):
    with pytest.raises(ValueError, match=re.escape(WRONG[option])) as refused:
        choose(configure(tmp_path / "nowhere", option))
    assert "\n" not in str(refused.value)
