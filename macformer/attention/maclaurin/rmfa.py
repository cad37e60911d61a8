"""Random Maclaurin feature attention (Macformer, arXiv 2408.11656)."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.attention.contract import blank_padding
from macformer.attention.inputs.guard import bound_dot, bound_inputs
from macformer.attention.maclaurin.kernels import Kernel, check_bound
from macformer.ops import MaclaurinFeatures, lay_out, maclaurin_attention
from macformer.ops.maclaurin import maclaurin_features
from macformer.ops.precision import accumulation_dtype

NAMED_DEGREES = range(9)  # whose coefficients tell one kernel from another
DESIGN = {  # what is written of a design, and where
    "num_features": slice(0, 1),
    "weight of the exact degree 1": slice(1, 2),
    "dot bound": slice(2, 3),
    "kernel, by its coefficients from degree 0 on": slice(3, None),
}


class RMFA(nn.Module):
    r"""Attend in linear time through random Maclaurin features of a dot-product kernel.

    .. math:: o_l = \frac{\sum_s \hat K(q_l, k_s) v_s}{\sum_s \hat K(q_l, k_s)}, \qquad
        \mathrm{E}\, \hat K(q, k) = \sum_{n \le N} a_n (q \cdot k / \sqrt{E})^n

    Bidirectional, where the authors' code sums causally, and with the features in the checkpoint,
    where theirs draws new ones on every start.

    Args:
        num_features: Random features per head, beside the exact degree 0.
        kernel: The kernel to estimate, by its series; its closed form is not used.
        sampler: How degrees and signs are drawn; see :mod:`macformer.attention.maclaurin.samplers`.
        per_head: Whether each head has features of its own; the authors share one set.
        input_norm: The norm that queries and keys do not exceed; None where nothing bounds them.
        guard: The :math:`|q \cdot k| / \sqrt{E}` to which dot products are held by clipping norms,
            where ``input_norm`` does not keep them below it; None for no clipping.
        assumed_dot: The :math:`|q \cdot k| / \sqrt{E}` that features are designed for where nothing
            bounds it.
        scale: Factory of what scales queries and keys first, after which ``input_norm`` bounds them
            no more; None leaves them.

    Raises:
        ValueError: If a coefficient is negative, or if the series diverges where it is needed.
    """

    signs: Tensor
    weights: Tensor
    constant: Tensor
    widths: Tensor
    design: Tensor
    laid_out_signs: Tensor
    laid_out_weights: Tensor

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        num_features: int,
        kernel: Kernel,
        sampler: Callable[..., MaclaurinFeatures],
        per_head: bool,
        input_norm: float | None,
        guard: float | None,
        assumed_dot: float,
        scale: Callable[..., nn.Module] | None,
    ):
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features is {num_features}; at least 1 is needed")
        self.scale = None if scale is None else scale(num_heads=num_heads, head_dim=head_dim)
        dot_bound, self.guard = bound_dot(
            head_dim=head_dim, input_norm=input_norm if scale is None else None, guard=guard
        )
        self.num_features = num_features
        self.kernel = kernel
        self.dot_bound = assumed_dot if math.isinf(dot_bound) else dot_bound
        check_bound(kernel, dot_bound=self.dot_bound)
        features = sampler(
            kernel.coefficients,
            num_features=num_features,
            num_heads=num_heads if per_head else 1,
            head_dim=head_dim,
            dot_bound=self.dot_bound,
        )
        self.linear = features.linear
        self.register_buffer("signs", features.signs)
        self.register_buffer("weights", features.weights)
        self.register_buffer("constant", features.constant)
        self.register_buffer("widths", torch.tensor(features.widths, dtype=torch.long))
        self.register_buffer("design", self._design())
        self._static_widths = features.widths  # reading the buffer would wait for the device
        self._lay_out()

    def _lay_out(self) -> None:
        """Prepare for the op what no forward pass changes; a checkpoint holds the features."""
        features = lay_out(self.features)
        self.register_buffer("laid_out_signs", features.signs, persistent=False)
        self.register_buffer("laid_out_weights", features.weights, persistent=False)
        self._laid_out_widths, self._has_entries = features.widths, features.has_entries

    @property
    def features(self) -> MaclaurinFeatures:
        return MaclaurinFeatures(
            signs=self.signs,
            weights=self.weights,
            constant=self.constant,
            linear=self.linear,
            widths=self._static_widths,
        )

    def state_size(self, *, seq_len: int, head_dim: int, value_dim: int) -> int:
        """Keep the sums over keys, of the constant part of the kernel, too."""
        return (len(self.laid_out_weights) + 1) * (value_dim + 1)

    def forward(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        value: Float[Tensor, "B H S Ev"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B H L Ev"]:
        query, key, value = blank_padding(query, key, value, key_padding_mask)
        query, key = self._bound(query, key, key_padding_mask)
        features = MaclaurinFeatures(
            signs=self.laid_out_signs,
            weights=self.laid_out_weights,
            constant=self.constant,
            linear=0.0,
            widths=self._laid_out_widths,
            has_entries=self._has_entries,
        )
        return maclaurin_attention(query, key, value, features, key_padding_mask=key_padding_mask)

    def map_features(
        self,
        query: Float[Tensor, "B H L E"],
        key: Float[Tensor, "B H S E"],
        *,
        key_padding_mask: Bool[Tensor, "B S"] | None = None,
    ) -> tuple[Float[Tensor, "B H L F"], Float[Tensor, "B H S F"]]:
        """Return the features that :meth:`forward` never stores, in float32 at least.

        Of queries and keys whose padding is blank already.
        """
        dtype = accumulation_dtype(query)
        query, key = self._bound(query, key, key_padding_mask)
        return maclaurin_features(query.to(dtype), key.to(dtype), self.features)

    def _bound(
        self, query: Tensor, key: Tensor, key_padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return bound_inputs(
            query, key, scale=self.scale, guard=self.guard, key_padding_mask=key_padding_mask
        )

    def _design(self) -> Int[Tensor, "D"]:
        """Write what features are drawn for as integers, which no conversion of a module rounds."""
        coefficients = map(self.kernel.coefficients, NAMED_DEGREES)
        numbers = [self.num_features, self.linear, self.dot_bound, *coefficients]
        design = torch.tensor(numbers, dtype=torch.float64, device="cpu").view(torch.long)
        design[0] = self.num_features
        return design

    def _apply(self, fn, recurse=True):
        """Lay out after every conversion, so that degree 1 has the rounding of its dtype alone.

        Those weights that are buffers keep that of every dtype passed through.
        """
        super()._apply(fn, recurse)
        self._lay_out()
        return self

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        """Take the checkpoint's features, whose degrees, and so shapes, are random.

        What they are drawn for is not random, and must be what this model has; a checkpoint
        without a word on it is taken as it is, and one of before the bound and the kernel were
        written is asked for the rest.
        """
        own = self._design()
        saved = state_dict.get(f"{prefix}design", own)
        if differences := _compare(saved, own):
            *_, error_msgs = args
            error_msgs.append(f"{prefix}design: {differences}")
            return
        state_dict[f"{prefix}design"] = own.to(saved.device)
        for name in ("signs", "weights", "widths"):
            saved = state_dict.get(prefix + name)
            if saved is not None:
                own = getattr(self, name)
                setattr(self, name, torch.empty(saved.shape, dtype=own.dtype, device=own.device))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        self._static_widths = tuple(self.widths.tolist())
        self._lay_out()


def _compare(saved: Int[Tensor, "C"], own: Int[Tensor, "D"]) -> str:
    """Say in what a checkpoint's design differs, of as much as it holds; "" where it agrees."""
    there, here = _read(saved), _read(own)
    return "; ".join(
        f"{name}: {_show(there[part])} in the checkpoint, {_show(here[part])} here"
        for name, part in DESIGN.items()
        if not all(
            math.isclose(x, y, rel_tol=1e-6) for x, y in zip(there[part], here[part], strict=False)
        )
    )


def _read(design: Int[Tensor, "D"]) -> list[float]:
    design = design.cpu()
    return [float(design[0]), *design[1:].view(torch.float64).tolist()]


def _show(numbers: list[float]) -> str:
    return ", ".join(f"{x:.6g}" for x in numbers)
