"""The benchmark measures what it says, and its command line refuses what it does not know."""

import re
import sys
import threading

import jaxtyping
import pandas as pd
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.attention.contract import build
from macformer.benchmark import cli
from macformer.benchmark import measure as benchmark
from macformer.benchmark.cases import attention_names
from macformer.benchmark.cli import load_config, main
from macformer.benchmark.peers import PEERS, SDPA_KERNELS, PublishedCausal
from macformer.benchmark.table import relate


def test_peak_memory_of_a_known_allocation():
    def run():
        first = torch.ones(1000)  # 4000 bytes live on while 8000 more come
        second = torch.ones(2000)
        del second
        return first

    assert benchmark.measure_peak(run, "cpu") == pytest.approx(12_000, abs=256)


def test_flops_of_softmax_by_hand(tmp_path):
    table = run(tmp_path, "attention=softmax", "length=64", "mode=forward")
    # 2 * 2 heads, two products of 64 x 64 x 32.
    assert table.GFLOP.item() == pytest.approx(4 * 2 * 2 * 64 * 64 * 32 / 1e9)


def run(tmp_path, *arguments, config_dirs=()) -> pd.DataFrame:
    folders = [f"--config-dir={folder}" for folder in config_dirs]
    assert (
        main([*folders, *arguments, "rounds=2", f"output_dir={tmp_path}", "memory_limit_gib=1e6"])
        == 0
    )
    return pd.read_csv(tmp_path / "bench.csv")


def test_every_combination_is_measured(tmp_path):
    arguments = ("attention=softmax,rmfa_exp", "vs=published_causal", "length=16,32")
    table = run(tmp_path, *arguments, "mode=forward,forward_backward")
    assert len(table) == 3 * 2 * 2
    assert table.failure.isna().all()
    assert (table.ms > 0).all()
    assert (table[table.attention == "softmax"].ratio == 1).all()
    assert {path.name for path in tmp_path.glob("*.png")} == {"time.png", "memory.png"}


def test_attention_from_another_folder(tmp_path):
    folder = tmp_path / "mine" / "attention"
    folder.mkdir(parents=True)
    shipped = "_target_: macformer.attention.SoftmaxAttention\n_partial_: true\ndropout: 0.0\n"
    (folder / "outsider.yaml").write_text(shipped)
    (folder / "broken.yaml").write_text(shipped.replace("Softmax", "No"))
    arguments = ("attention=outsider,broken", "length=16", "mode=forward")
    table = run(tmp_path, *arguments, config_dirs=[folder.parent]).set_index("attention")
    assert table.ms["outsider"] > 0
    assert "NoAttention" in table.failure["broken"]


def test_all_shipped_attentions_are_found():
    names = attention_names(load_config([]))
    assert {"softmax", "rmfa_exp", "rfa", "uniform"} <= set(names)
    assert not any(name.startswith("_") for name in names)


def test_missing_peer_is_skipped_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(PEERS, "performer-pytorch", lambda **_: __import__("no_peer"))
    arguments = ("attention=softmax", "vs=performer-pytorch", "length=16", "mode=forward")
    table = run(tmp_path, *arguments).set_index("attention")
    assert "no_peer" in table.failure["performer-pytorch"]
    assert table.ms["softmax"] > 0


class Witness(nn.Module):
    """An attention that tells what it sees at each call."""

    def __init__(self, see):
        super().__init__()
        self.see = see

    def forward(self, query, key, value):
        self.see(self)
        return query + key + value


@pytest.mark.parametrize(("mode", "training"), [("forward", False), ("forward_backward", True)])
def test_a_forward_pass_is_that_of_inference(tmp_path, monkeypatch, mode, training):
    seen = []
    peer = Witness(lambda module: seen.append(module.training))
    monkeypatch.setitem(PEERS, "performer-pytorch", lambda **_: peer)
    table = run(tmp_path, "attention=softmax", "vs=performer-pytorch", "length=16", f"mode={mode}")
    assert table.failure.isna().all() and set(seen) == {training}


def test_a_peer_is_built_for_its_own_length_whatever_others_are_asked_for(tmp_path, monkeypatch):
    built = []

    def build(*, max_seq_len, **_):
        built.append(max_seq_len)
        return Witness(lambda module: None)

    monkeypatch.setitem(PEERS, "performer-pytorch", build)
    run(tmp_path, "attention=softmax", "vs=performer-pytorch", "length=16,64", "mode=forward")
    assert built == [16, 64]


def test_no_thread_of_the_benchmark_runs_beside_a_measurement(tmp_path, monkeypatch):
    before, seen = set(threading.enumerate()), set()
    peer = Witness(lambda module: seen.update(threading.enumerate()))
    monkeypatch.setitem(PEERS, "performer-pytorch", lambda **_: peer)
    run(tmp_path, "attention=softmax", "vs=performer-pytorch", "length=16", "mode=forward")
    assert seen <= before


def test_a_failure_stays_in_its_column(tmp_path, monkeypatch):
    def fail(**_):
        raise ValueError("a | b || c")

    monkeypatch.setitem(PEERS, "performer-pytorch", fail)
    run(tmp_path, "attention=softmax", "vs=performer-pytorch", "length=16", "mode=forward")
    lines = [line for line in (tmp_path / "bench.md").read_text().splitlines() if line[:1] == "|"]
    assert len(lines) == 4  # the head, a rule and two rows
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert r"a \| b \|\| c" in lines[-1]


def test_slow_methods_sit_out_rounds(tmp_path):
    arguments = ("attention=softmax", "length=16", "mode=forward", "seconds=1e-9")
    assert run(tmp_path, *arguments).rounds.item() == 1


@pytest.mark.parametrize("peer", sorted(set(PEERS) - set(SDPA_KERNELS)))
def test_peers_are_attentions(peer, tmp_path):
    """A peer either gives an output of the right shape, or says which package it misses."""
    shape = (2, 3, 1024, 32)
    query, key, value = (torch.randn(shape) for _ in range(3))
    try:
        shapes = {"num_heads": 3, "head_dim": 32, "num_features": 16}
        method = build(PEERS[peer], **shapes, max_seq_len=1024)
    except ImportError as error:
        assert "No module named" in str(error)
    else:
        assert method(query, key, value).shape == shape


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("lenght=16", "lenght"),
        ("mode=backward", "backward"),
        ("vs=nobody", "nobody"),
        ("softmax", "key=value"),
        ("attention=softmax,nope", "attention nope is unknown; rows are bigbird, "),
        ("attention=1", "attention is [1]; it must be null or a list, each of it a text"),
        ("length=long", "length is ['long']; it must be a list, each of it a whole number"),
        ("length=16,0", "length is [16, 0]; it must be a list"),
        ("length=", "length is []; it must be a list"),
        ("mode=null", "mode is null; it must be a list, each of it forward or forward_backward"),
        ("device=tpu0", "device is tpu0; it must be a device that can be timed, as cpu or cuda:0"),
        ("device=mps", "device is mps; it must be a device that can be timed"),
        ("device=cuda:99", "device is cuda:99, which cannot be used here: "),
        ("dtype=int8", "dtype is int8; it must be float32 or float16 or bfloat16 or float64"),
        ("threads=0", "threads is 0; it must be a whole number of at least 1"),
        ("batch_size=two", "batch_size is two; it must be a whole number of at least 1"),
        ("num_heads=-2", "num_heads is -2; it must be a whole number of at least 1"),
        ("head_dim=1.5", "head_dim is 1.5; it must be a whole number of at least 1"),
        ("num_features=[8]", "num_features is [8]; it must be a whole number of at least 1"),
        ("rounds=null", "rounds is null; it must be a whole number of at least 1"),
        ("seconds=0", "seconds is 0; it must be a number above 0"),
        ("memory_limit_gib=all", "memory_limit_gib is all; it must be a number above 0"),
        ("output_dir=null", "output_dir is null; it must be a folder"),
        ("output_dir=/dev/null/bench", "/dev/null/bench"),
        ("length=[{", "keys are"),
    ],
)
def test_unknown_options_are_refused_in_one_line_before_any_work(
    argument, message, capsys, monkeypatch
):
    monkeypatch.setattr(benchmark, "measure_lengths", None)
    assert main([argument]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_interruption_keeps_the_lengths_that_are_done(tmp_path, monkeypatch, capsys):
    measure = benchmark._measure

    def stop_at_the_second(cases, *rest):
        if cases[0].length > 8:
            raise KeyboardInterrupt
        measure(cases, *rest)

    monkeypatch.setattr(benchmark, "_measure", stop_at_the_second)
    options = ("attention=softmax", "length=8,16", "rounds=2", "memory_limit_gib=1e6")
    assert main([*options, f"output_dir={tmp_path}"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "macformer-bench: interrupted"
    assert set(pd.read_csv(tmp_path / "bench.csv")["length"]) == {8}


def test_a_length_that_has_no_room_is_a_failure_of_its_cases(tmp_path, capsys):
    options = ("attention=softmax,uniform", "length=8,10000000000000", "rounds=1", "mode=forward")
    assert main([*options, f"output_dir={tmp_path}", "memory_limit_gib=1e6"]) == 0
    table = pd.read_csv(tmp_path / "bench.csv")
    assert table["failure"].notna().tolist() == table["length"].gt(8).tolist()
    assert len(table) == 4 and "10000000000000" in capsys.readouterr().out


def test_a_disk_that_is_full_takes_no_figure_along(tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "write_report", full)
    options = ("attention=softmax", "length=8", "rounds=1", "memory_limit_gib=1e6")
    assert main([*options, f"output_dir={tmp_path}"]) == 1
    captured = capsys.readouterr()
    assert "No space left on device" in captured.err and "softmax" in captured.out


def test_a_folder_may_be_called_by_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("attention=softmax", "length=8", "rounds=1", "memory_limit_gib=1e6")
    assert main([*options, "output_dir=2024"]) == 0
    assert (tmp_path / "2024" / "bench.csv").is_file()


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_memory_of_a_cpu_by_any_name_is_limited(tmp_path, monkeypatch, device):
    limits = []
    monkeypatch.setattr(benchmark, "limit_memory", limits.append)
    options = ("attention=softmax", "length=8", "rounds=1", f"device={device}")
    assert main([*options, f"output_dir={tmp_path}", "memory_limit_gib=1e12"]) == 0
    assert limits == [sys.maxsize]


def test_a_folder_of_rows_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main([f"--config-dir={tmp_path / 'nowhere'}"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_published_algorithm_is_causal_attention_by_its_own_features():
    torch.manual_seed(0)
    peer = PublishedCausal(num_heads=3, head_dim=5, num_features=11)
    query, key = (torch.randn(2, 3, 7, 5) / 5 for _ in range(2))
    value = torch.randn(2, 3, 7, 13)
    kernel = (peer._phi(query) @ peer._phi(key).mT).tril()
    expected = kernel @ value / kernel.sum(-1, keepdim=True).clamp(min=1)
    assert_close(peer(query, key, value), expected)


def test_softmax_counts_as_its_fastest_kernel_does():
    measured = pd.DataFrame(
        {
            "attention": ["softmax", "sdpa_flash", "sdpa_cudnn", "rfa"],
            "mode": "forward",
            "length": 64,
            "ms": [3.0, 2.0, float("nan"), 5.0],
        }
    )
    assert relate(measured).ratio.tolist()[:2] == [1.5, 1.0]
    assert measured.iloc[-1].ratio == 2.5


@pytest.mark.slow
def test_ratios_that_are_safe_by_a_factor_of_two(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    arguments = ("attention=softmax,rmfa_exp,rfa", "length=4096", "mode=forward_backward")
    table = run(tmp_path, *arguments, "vs=published_causal").set_index("attention")
    assert table.ratio["rmfa_exp"] <= 0.26
    assert table.ratio["rfa"] <= 0.26
    assert table.ms["published_causal"] / table.ms["rmfa_exp"] >= 17
    assert table["peak MiB"]["rmfa_exp"] <= 20


@pytest.mark.parametrize(("hard", "soft"), [(2**33, 2**33), (-1, 2**40)])
def test_the_hard_limit_of_memory_stays_that_of_the_shell(monkeypatch, hard, soft):
    """An ordinary user may not raise it; -1 is none."""
    given = []
    monkeypatch.setattr(benchmark.resource, "getrlimit", lambda kind: (-1, hard))
    monkeypatch.setattr(benchmark.resource, "setrlimit", lambda kind, limits: given.append(limits))
    benchmark.limit_memory(2**40)
    assert given == [(soft, hard)]
