"""Put an attention of this project into a model that exists, and take it out again."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from macformer.attention.contract import build
from macformer.dropin import multihead
from macformer.dropin.reached import stop_watching, watch
from macformer.dropin.rows import Factory, describe_row, row_factory
from macformer.dropin.savings import attention_share, upper_limit
from macformer.dropin.sites import CHILD, NAME, DropinError, Layers, Site, choose


@dataclass(frozen=True)
class Report:
    """What was replaced, and what it can bring.

    Attributes:
        replaced: Names of the attention modules with a new attention.
        kept: Why each other one has its own still, by name.
        num_parameters: Learnable numbers that the new attention adds.
        max_seq_len: The longest sequence that it was built for.
        attention_share: Of the model's multiplications at that length, the share that was
            replaced; see :mod:`macformer.dropin.savings`.
    """

    replaced: tuple[str, ...]
    kept: Mapping[str, str]
    num_parameters: int
    max_seq_len: int
    attention_share: float

    @property
    def upper_limit(self) -> float:
        """How much faster the model gets at most at that length, by multiplications alone."""
        return upper_limit(self.attention_share)

    def __str__(self) -> str:
        lines = [
            f"replaced {len(self.replaced)} of {len(self.replaced) + len(self.kept)} attentions, "
            f"with {self.num_parameters:,} parameters: {', '.join(self.replaced)}"
        ]
        lines += [f"kept {name}: {reason}" for name, reason in self.kept.items()]
        lines.append(
            f"at {self.max_seq_len:,} tokens they took {100 * self.attention_share:.0f} % of the "
            "multiplications; by that count alone, a model without attention would be "
            f"{self.upper_limit:.2f} times as fast"
        )
        return "\n".join(lines)


def replace_attention(
    model: nn.Module,
    attention: str | Factory,
    *,
    ppsbn: str = "without",
    overrides: Sequence[str] = (),
    config_dirs: Sequence[str | Path] = (),
    layers: Layers | None = None,
    max_seq_len: int | None = None,
) -> Report:
    """Replace the attention of an encoder, in place.

    Works on ``torch.nn.MultiheadAttention``, alone and within ``torch.nn.TransformerEncoder``, and
    on models of transformers whose attention goes through its ``AttentionInterface``. Weights,
    names and what is called stay as they are; each module gets the new attention as a child. A
    model that was replaced before is restored first, once the new attention is built.

    Before it has been finetuned, a model with a new attention is another model: trained heads
    attend sharply, where random features see little but the mean. ``macformer-inspect`` says how
    far off each layer is.

    Args:
        attention: A row of the tables by the name of its YAML, as ``rmfa_exp_scaled``; or a factory
            under the contract of :mod:`macformer.attention`.
        ppsbn: Of a row, as on the command line.
        overrides: Options of a row, as ``attention.num_features=256``.
        config_dirs: Folders of rows of your own, as ``--config-dir``.
        layers: Which attention modules: indices in their order, names or patterns of names, or a
            predicate on names; None for all of which softmax need not stay.
        max_seq_len: The longest sequence; None for what the model's configuration says.

    Raises:
        DropinError: If nothing can be replaced, or a layer that was asked for cannot be.
        ConfigError: If there is no such row, or it cannot be built.
    """
    if isinstance(layers, int | str):
        raise DropinError(f"layers is {layers!r}; give a list, as [{layers!r}]")
    factory = attention
    if isinstance(attention, str):
        factory = row_factory(attention, ppsbn=ppsbn, overrides=overrides, config_dirs=config_dirs)
    elif ppsbn != "without" or overrides:
        raise DropinError("ppsbn and overrides are options of a row that is given by its name")
    assert callable(factory)
    sites = find_sites(model)
    chosen, kept = choose(sites, layers)
    length = max_seq_len or _longest(model)
    children = {site.name: _build(site, factory, max_seq_len=length) for site in chosen}
    replaced = tuple(children)
    restore(model)  # what could be refused has been
    share = attention_share(model, sites, chosen, length=length)
    try:
        _insert(model, sites, children)
        watch(model, children)
    except Exception:
        restore(model)
        raise
    row = describe_row(attention, ppsbn, overrides)
    _remember(model, {**row, "layers": list(replaced), "max_seq_len": length})
    return Report(
        replaced=replaced,
        kept=kept,
        num_parameters=sum(p.numel() for child in children.values() for p in child.parameters()),
        max_seq_len=length,
        attention_share=share,
    )


def restore(model: nn.Module) -> None:
    """Give a model its own attention back, with the weights that it has now."""
    stop_watching(model)
    for module in model.modules():
        if CHILD in module._modules:
            del module._modules[CHILD]
            module.__dict__.pop(NAME, None)
    multihead.undo(model)
    if seam := _huggingface():
        seam.undo_dispatch(model)


def find_sites(model: nn.Module) -> list[Site]:
    """Find the attention modules of a model, in its order.

    Raises:
        DropinError: If there are none that could be replaced.
    """
    sites = multihead.find_sites(model)
    if seam := _huggingface():
        sites |= seam.find_sites(model)
    if not sites:
        raise DropinError(
            f"{type(model).__name__} has no attention that can be replaced: neither "
            "torch.nn.MultiheadAttention nor a module of transformers that asks its "
            "AttentionInterface for the function to call"
        )
    return [sites[name] for name, _ in model.named_modules() if name in sites]


def _huggingface() -> Any:
    """Return the seam of transformers, if that was imported: no model of it exists otherwise."""
    if "transformers" not in sys.modules:
        return None
    from macformer.dropin import huggingface

    return huggingface


def _longest(model: nn.Module) -> int:
    seam = _huggingface()
    length = seam.longest(model) if seam else None
    if length is None:
        raise DropinError(
            f"{type(model).__name__} does not say how long its sequences are; give max_seq_len"
        )
    return length


def _build(site: Site, factory: Callable[..., nn.Module], *, max_seq_len: int) -> nn.Module:
    """Build the attention of one layer where the layer's weights are, in their precision."""
    child = build(
        factory, max_seq_len=max_seq_len, num_heads=site.num_heads, head_dim=site.head_dim
    )
    weights = [p for p in site.module.parameters() if p.is_floating_point()]
    if weights:
        child.to(device=weights[0].device, dtype=weights[0].dtype)
    return child.train(site.module.training)


def _insert(model: nn.Module, sites: Sequence[Site], children: Mapping[str, nn.Module]) -> None:
    through_interface: dict[str, Site] = {}
    for site in sites:
        child = children.get(site.name)
        if isinstance(site.module, nn.MultiheadAttention):
            if child is None:
                continue
            multihead.stand_in(site.module)
        else:
            through_interface[site.name] = site
        site.module.register_module(CHILD, child)
        site.module.__dict__[NAME] = site.name
    multihead.refuse_nested(model)
    if through_interface:
        _huggingface().dispatch(model, through_interface)


def _remember(model: nn.Module, row: dict[str, Any]) -> None:
    if seam := _huggingface():
        seam.remember(model, row)
