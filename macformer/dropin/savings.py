r"""What replacing attention can save: its share of a model's multiplications.

With layers of :math:`P` weights in matrices, a token costs :math:`P` multiplications for them and
:math:`2 n H E` for attention to :math:`n` keys, for scores and for values.
"""

from collections.abc import Sequence

from torch import nn

from macformer.dropin.sites import Site


def attention_share(
    model: nn.Module, sites: Sequence[Site], replaced: Sequence[Site], *, length: int
) -> float:
    r"""Return the share of a model's multiplications that the attention to be replaced takes.

    .. math:: a = \frac{\sum_{replaced} 2 N H E}{\sum_{all} (P + 2 n H E)}, \qquad n \le N

    which is :math:`N / (6 D + N)` for a usual encoder of width D, all of whose attention is
    replaced. What stands before and behind the layers is left out; so is memory traffic, which
    speaks against short matrices.

    Args:
        sites: All attention of the model, before any was replaced.
        length: Tokens of a sequence, N.
    """
    names = {site.name for site in replaced}
    whole = taken = 0
    for site in sites:
        num_keys = length if site.window is None else min(length, 2 * site.window)
        attention = 2 * num_keys * site.num_heads * site.head_dim
        whole += attention + _num_weights(_layer_of(model, site, sites))
        taken += attention if site.name in names else 0
    return taken / whole


def upper_limit(share: float) -> float:
    """Return how much faster a model gets at most, by an attention that takes no time at all."""
    return 1 / max(1 - share, 1e-9)


def _layer_of(model: nn.Module, site: Site, sites: Sequence[Site]) -> nn.Module:
    """Return the largest module around an attention that holds no other one."""
    parts = site.name.split(".") if site.name else []
    for depth in range(len(parts) + 1):
        prefix = ".".join(parts[:depth])
        inside = [s for s in sites if not prefix or f"{s.name}.".startswith(f"{prefix}.")]
        if len(inside) == 1:
            return model.get_submodule(prefix)
    raise AssertionError(site.name)


def _num_weights(layer: nn.Module) -> int:
    """Count the weights that multiply every token: those in matrices, look-up tables left out."""
    tables = {id(m.weight) for m in layer.modules() if isinstance(m, nn.Embedding)}
    matrices = {id(p): p for p in layer.parameters() if p.ndim == 2 and id(p) not in tables}
    return sum(matrix.numel() for matrix in matrices.values())
