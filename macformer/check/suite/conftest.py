"""The rows that the contract holds, what it must be told of single ones, and how they are built.

Dimensions are pairwise different, so that a transposed axis cannot hide, and the width of a head is
even, as rotations of pairs of entries need it. Numbers are float64, so that tolerances are about
the method and not about rounding.
"""

import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from macformer.attention import contract
from macformer.check.variants import find_own_variants
from macformer.runs.build import build_attention
from macformer.runs.variants import OURS, Variant, find_variants

# Every row of configs/attention: a file that is lost, or comes without notice, shows.
ROWS = {
    "bigbird",
    "cosformer",
    "gaussian",
    "h_transformer",
    "hedgehog",
    "informer",
    "informer_sampled",
    "kernelized_exp",
    "kernelized_exp_scaled",
    "kernelized_inv",
    "kernelized_log",
    "kernelized_sqrt",
    "kernelized_trigh",
    "linear",
    "linformer",
    "linformer_learnt",
    "linformer_means",
    "local",
    "long_short",
    "longformer",
    "none",
    "nystrom",
    "nystrom_conv",
    "performer",
    "performer_relu",
    "reformer",
    "rfa",
    "rfa_arccos",
    "rmfa_exp",
    "rmfa_exp_scaled",
    "rmfa_inv",
    "rmfa_log",
    "rmfa_sqrt",
    "rmfa_trigh",
    "sinkhorn",
    "skyformer",
    "softmax",
    "sparse",
    "sparse_strided",
    "synthesizer_dense",
    "synthesizer_random",
    "taylor",
    "uniform",
}

# For a row whose blocks, landmarks or windows exceed the suite's 11 to 17 tokens: the keys of its
# YAML that make them small, so that it is not tested as plain softmax only.
SMALL: dict[str, dict[str, Any]] = {
    "bigbird": {"block_size": 2, "num_random": 1},
    "h_transformer": {"block_size": 2},
    "informer": {"num_queries": 3},
    "informer_sampled": {"num_queries": 3},
    "linformer": {"num_slots": 4},
    "linformer_learnt": {"num_slots": 4},
    "linformer_means": {"num_slots": 4},
    "local": {"block_size": 3},
    "long_short": {"window": 3, "num_pooled": 2},
    "longformer": {"window": 4},
    "nystrom": {"num_landmarks": 4},
    "nystrom_conv": {"num_landmarks": 4, "conv_kernel": 3},
    "reformer": {"chunk_size": 3, "num_buckets": 4},
    "sinkhorn": {"block_size": 3},
    "skyformer": {"num_landmarks": 6},
    "sparse": {"block_size": 4, "num_last": 1},
    "sparse_strided": {"block_size": 3},
}

# Keys of YAML that hold a count, but of no tokens: they need no entry above.
NO_LENGTHS = {"num_features", "pool_size", "rank"}

# Rows that may have over a tenth more parameters than softmax, with the reason.
LARGER: dict[str, str] = {
    "linformer_learnt": "a weight for each head, slot and position: five times softmax's number",
}

# Rows that are also held to the contract inside ppSBN: one of each kind is enough for a wrapper,
# of those that declare nothing, a place of keys, and that queries are keys.
WRAPPED = ("rmfa_exp", "softmax", "cosformer", "reformer")


B, H, L, S, E, EV = 2, 3, 11, 13, 8, 5
MAX_SEQ_LEN = 17


class Case(NamedTuple):
    """A row, at the sizes of its YAML or at small ones, alone or inside ppSBN."""

    variant: Variant
    ppsbn: str = "without"
    small: bool = False

    @property
    def name(self) -> str:
        return self.variant.name

    def __str__(self) -> str:
        reading = [] if self.ppsbn == "without" else [self.ppsbn]
        return "-".join([self.name, *reading, *["small"] * self.small])


class Subject:
    """A row as the contract meets it."""

    def __init__(self, case: Case, cfg: DictConfig):
        self.case = case
        self.cfg = cfg
        sizes = SMALL[case.name] if case.small else {}
        if not set(sizes) <= set(cfg.attention):
            raise ValueError(f"SMALL names keys that {case.name} lacks: {sorted(sizes)}")
        self.sized = cfg.copy()
        self.sized.attention.update(sizes)
        self.attention = self.build(0)  # for all tests, which change copies only

    def build(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        module = build_attention(self.sized, num_heads=H, head_dim=E, max_seq_len=MAX_SEQ_LEN)
        return module.eval().double()

    @cached_property
    def other(self) -> nn.Module:
        """A module of another seed."""
        return self.build(1)

    @cached_property
    def self_attention_only(self) -> bool:
        return contract.is_self_attention_only(self.attention)

    @cached_property
    def positional(self) -> bool:
        return contract.is_positional(self.attention)

    @property
    def is_ours(self) -> bool:
        return self.case.variant.folder == OURS

    @property
    def query_lengths(self) -> list[int]:
        """How many queries to try with S keys."""
        return [S] if self.self_attention_only else [L, S]

    @property
    def at_telling_sizes(self) -> bool:
        """Whether blocks and windows are shorter than the sequences here."""
        return self.case.small or self.case.name not in SMALL

    def draw(self, query_len: int, *, key_len: int = S) -> list[Tensor]:
        shapes = ((B, H, query_len, E), (B, H, key_len, E), (B, H, key_len, EV))
        return [torch.randn(shape, dtype=torch.float64) for shape in shapes]

    def report(self, message: str) -> None:
        """Fail for a row of this project, and warn about a user's."""
        if self.is_ours:
            pytest.fail(message)
        warnings.warn(UserWarning(message), stacklevel=2)


@pytest.fixture(scope="session")
def buildable(composed: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Compose a configuration that nobody else has: to build from one resolves it in place."""

    def compose(*overrides: str, folder: Path = OURS) -> DictConfig:
        cfg = composed(*overrides, folder=folder).copy()
        OmegaConf.set_readonly(cfg, False)
        return cfg

    return compose


@pytest.fixture(scope="session")
def subject(case: Case, buildable: Callable[..., DictConfig]) -> Subject:
    options = (f"attention={case.name}", f"ppsbn={case.ppsbn}")
    return Subject(case, buildable(*options, folder=case.variant.folder))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests of a ``subject`` every case."""
    if "case" not in metafunc.fixturenames:
        return
    rows = [Case(row) for row in _find_rows(metafunc.config)]
    small = [row._replace(small=True) for row in rows if _is_ours(row) and row.name in SMALL]
    wrapped = [
        Case(Variant(OURS, "attention", name), ppsbn, small=name in SMALL)
        for name in WRAPPED
        for ppsbn in ("with", "with_batch")
    ]
    if metafunc.config.getoption("--only-theirs"):
        rows, small, wrapped = [row for row in rows if not _is_ours(row)], [], []
    metafunc.parametrize("case", [*rows, *small, *wrapped], ids=str, scope="session")


def _is_ours(case: Case) -> bool:
    return case.variant.folder == OURS


@pytest.fixture(scope="session")
def told() -> SimpleNamespace:
    """What the contract is told of single rows."""
    return SimpleNamespace(
        ours=OURS, rows=ROWS, small=SMALL, no_lengths=NO_LENGTHS, larger=LARGER, wrapped=WRAPPED
    )


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> list[Variant]:
    return _find_rows(request.config)


def _find_rows(config: pytest.Config) -> list[Variant]:
    rows = find_variants(OURS, "attention")
    for option in config.getoption("--config-dir") or []:
        try:
            found = find_own_variants(Path(option).resolve())
        except ValueError as error:
            raise pytest.UsageError(f"--config-dir {error}") from error
        rows += [variant for variant in found if variant.group == "attention"]
    return rows
