"""Write the page of rows: what each computes, by its docstring, and what it costs, by counting."""

import inspect
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig

import configs
from macformer.attention.contract import is_positional, is_self_attention_only
from macformer.measuring import count_flops
from macformer.runs.build import build_attention, build_model
from macformer.runs.config import compose

ROOT = Path(configs.__path__[0])
LENGTHS = (1024, 4096)
HEAD_DIM = 32  # Skyformer's
HEADER = """# Rows

A row of the tables is one file in `configs/attention/`, named after it: `macformer-train
attention=NAME`. All rows are tested against one contract: padding has no influence on present
tokens, examples do not depend on one another, gradients are exact, a checkpoint holds everything.

The table shows counts, not measurements: multiplications and additions of one head of width
{head_dim} in a forward pass, relative to softmax at the same length; and the parameters of the
ListOps classifier of `recipe=skyformer`, with what a row adds to those of softmax. `positional`
rows depend on the positions of keys; `self` rows need queries and keys to be the same tokens.
[Speed and memory](studies/speed.md) has times.

{table}
"""


def describe_rows() -> str:
    """Return the page in Markdown."""
    rows = {name: _compose(name) for name in _names()}
    softmax = [_flops(rows["softmax"], length) for length in LENGTHS]
    size = _num_parameters(rows["softmax"])
    lines = [
        "| row | " + " | ".join(f"FLOPs at {n:,}" for n in LENGTHS) + " | parameters | needs |",
        "|:---|" + "---:|" * (len(LENGTHS) + 1) + ":---|",
    ]
    families: dict[str, list[str]] = {}
    for name, cfg in rows.items():
        flops = zip((_flops(cfg, length) for length in LENGTHS), softmax, strict=True)
        shares = " | ".join(f"{ours / theirs:.2g}" for ours, theirs in flops)
        parameters = _describe_size(_num_parameters(cfg), size)
        lines.append(f"| [`{name}`](#{name}) | {shares} | {parameters} | {_needs(cfg)} |")
        families.setdefault(cfg.attention["_target_"], []).append(name)
    sections = [_describe_family(target, names, rows) for target, names in families.items()]
    return HEADER.format(head_dim=HEAD_DIM, table="\n".join(lines)) + "\n" + "\n\n".join(sections)


def _names() -> list[str]:
    found = sorted(path.stem for path in (ROOT / "attention").glob("[!_]*.yaml"))
    return sorted(found, key=lambda name: name != "softmax")  # the reference first


def _compose(name: str) -> DictConfig:
    return compose("task=listops", "recipe=skyformer", f"attention={name}")


def _build(cfg: DictConfig, length: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_attention(cfg, num_heads=1, head_dim=HEAD_DIM, max_seq_len=length).eval()


@torch.no_grad()
def _flops(cfg: DictConfig, length: int) -> int:
    attention = _build(cfg, length)
    inputs = torch.randn(3, 1, 1, length, HEAD_DIM).unbind()
    return count_flops(lambda: attention(*inputs))


def _num_parameters(cfg: DictConfig) -> int:
    return sum(p.numel() for p in build_model(cfg).parameters())


def _describe_size(count: int, softmax: int) -> str:
    """Show a number of parameters, and what it has beyond softmax's, if anything."""
    excess = f"{100 * (count / softmax - 1):+.1f} %"
    return f"{count:,}" if excess == "+0.0 %" else f"{count:,} ({excess})"


def _needs(cfg: DictConfig) -> str:
    attention = _build(cfg, LENGTHS[0])
    names = {"positional": is_positional(attention), "self": is_self_attention_only(attention)}
    return ", ".join(name for name, holds in names.items() if holds)


def _describe_family(target: str, names: list[str], rows: dict[str, DictConfig]) -> str:
    """Describe a class once, then each of its rows by its note and its options."""
    attention = get_class(target)
    parts = [f"## {attention.__name__}", to_markdown(inspect.getdoc(attention) or "")]
    for name in names:
        parts.append(f"### {name}")
        lines = (ROOT / "attention" / f"{name}.yaml").read_text().splitlines()[1:]
        note = takewhile(lambda line: line.startswith("# "), lines)  # below the command
        parts.append(" ".join(line[2:] for line in note))
        options = [(k, v) for k, v in rows[name].attention.items() if not str(k).startswith("_")]
        if options:
            parts.append("```yaml\n" + "\n".join(map(_option, options)) + "\n```")
    return "\n\n".join(filter(None, parts))


def _option(item: tuple[Any, Any]) -> str:
    key, value = item
    if isinstance(value, DictConfig):
        value = value.get("_target_", value)
    return f"{key}: {'null' if value is None else value}"


def to_markdown(docstring: str) -> str:
    """Turn a docstring's roles, formulas and sections into Markdown; formulas stand between $."""
    text = re.sub(r":math:`(.+?)`", r"$\1$", docstring, flags=re.DOTALL)
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)
    text = re.sub(r"\.\. math::((?:[^\n]*\n?)(?:[ \t]+[^\n]*\n?|\n(?=[ \t]))*)", _display, text)
    text, *sections = re.split(r"^(Args|Raises|Attributes|Returns):\n", text, flags=re.MULTILINE)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        if title == "Args":
            text += "\n" + _arguments(body)
    return text.strip()


def _display(match: re.Match[str]) -> str:
    return "\n$$" + " ".join(match[1].split()) + "$$\n\n"


def _arguments(body: str) -> str:
    items = re.findall(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", body, flags=re.DOTALL | re.MULTILINE)
    return "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in items)
