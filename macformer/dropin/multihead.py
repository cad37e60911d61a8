"""The seam in torch's own layers: a stand-in for ``torch.nn.MultiheadAttention``.

The module keeps its parameters, its place and its name, and changes its class: what refers to it
goes on referring to it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear

from macformer.dropin.observe import ask
from macformer.dropin.sites import BEFORE, CHILD, NAME, DropinError, Site


class ReplacedAttention(nn.MultiheadAttention):
    """Project as ``torch.nn.MultiheadAttention`` does, and attend by the child ``macformer``.

    There are no weights to return: the second result is None, whatever ``need_weights`` says.
    Dropout of weights is left out.
    """

    def forward(
        self,
        query: Float[Tensor, "*batch L D"],
        key: Float[Tensor, "*batch S D"],
        value: Float[Tensor, "*batch S D"],
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "*batch L D"], None]:
        """Attend to all keys that are not padding.

        Queries and keys are one tensor: many attentions of this project are for one sequence, and
        would take the keys' padding for the queries'.

        Raises:
            DropinError: If keys are another tensor than queries, a mask says more than which keys
                are padding, or tensors are nested.
        """
        if key is not query:
            raise DropinError(
                f"{self._name} got keys that are another tensor than its queries, as attention to "
                "another sequence does, which must be kept: leave it out through layers"
            )
        if attn_mask is not None or is_causal:
            what = "is_causal" if attn_mask is None else "attn_mask"
            raise DropinError(f"{self._name} got {what}: its attention must be kept")
        if query.is_nested:
            raise DropinError(
                f"{self._name} got nested tensors, without the padding that they leave out; set "
                "use_nested_tensor=False on the encoder around it"
            )
        batched = query.ndim == 3
        inputs = [x if batched else x[None] for x in (query, key, value)]
        if batched and not self.batch_first:
            inputs = [x.transpose(0, 1) for x in inputs]
        q, k, v = self._project(*inputs)
        mask = None if key_padding_mask is None else _to_padding(key_padding_mask)
        if mask is not None and not batched:
            mask = mask[None]
        child = self._modules[CHILD]
        assert child is not None
        out = ask(self, child, q, k, v, mask)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if not batched:
            return out[0], None
        return out if self.batch_first else out.transpose(0, 1), None

    @property
    def _name(self) -> str:
        return self.__dict__[NAME] or "the model"

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = zip((query, key, value), self.in_proj_weight.chunk(3), biases, strict=True)
        heads = [linear(*each).unflatten(-1, (self.num_heads, -1)) for each in inputs]
        return [x.transpose(1, 2) for x in heads]


def _to_padding(mask: Tensor) -> Bool[Tensor, "*batch S"]:
    """Read a mask of floats, 0 or -inf, into which torch's layers turn a boolean one."""
    if not mask.is_floating_point():
        return mask.bool()
    padding = mask == -torch.inf
    # a finite number would be added to the scores; asserted on the device, without waiting for it
    torch._assert_async(  # pyright: ignore[reportPrivateImportUsage]
        (padding | (mask == 0)).all(), "key_padding_mask of floats must hold 0 and -inf alone"
    )
    return padding


def find_sites(model: nn.Module) -> dict[str, Site]:
    """Find torch's attention modules by name."""
    kept = {
        id(module): reason
        for parent in model.modules()
        if (reason := _reason_within(parent)) is not None
        for module in parent.modules()
    }
    return {
        name: Site(
            name,
            module,
            num_heads=module.num_heads,
            head_dim=module.head_dim,
            reason=kept.get(id(module)) or _reason(module),
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }


def _reason_within(parent: nn.Module) -> str | None:
    if isinstance(parent, nn.TransformerDecoderLayer):
        return "it is of a decoder"
    if type(parent).__name__.endswith("PoolingHead"):  # as transformers calls them
        return "its query is no token of the sequence"
    return None


def _reason(module: nn.MultiheadAttention) -> str | None:
    if type(module) not in (nn.MultiheadAttention, ReplacedAttention):
        return f"{type(module).__name__} may do more than torch.nn.MultiheadAttention"
    if module.in_proj_weight is None:
        return "its keys or values have another width than its queries (kdim, vdim)"
    if module.bias_k is not None or module.add_zero_attn:
        return "it adds a key (add_bias_kv, add_zero_attn)"
    return None


def stand_in(module: nn.MultiheadAttention) -> None:
    """Make a module call its child.

    ``_qkv_same_embed_dim`` is what torch's layers look at before they compute all of an encoder
    layer in one function, from its weights, without calling its attention.
    """
    module.__class__ = ReplacedAttention
    module.__dict__["_qkv_same_embed_dim"] = False


def refuse_nested(model: nn.Module) -> None:
    """Keep encoders from turning padded batches into nested tensors, as they were built to do."""
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder) and _holds_stand_in(encoder):
            encoder.__dict__[BEFORE] = encoder.use_nested_tensor
            encoder.use_nested_tensor = False


def undo(model: nn.Module) -> None:
    """Give modules and encoders back what they were."""
    for module in model.modules():
        if isinstance(module, ReplacedAttention):
            kind: type[nn.Module] = nn.MultiheadAttention
            module.__class__ = kind  # pyright: ignore[reportAttributeAccessIssue]
            module.__dict__["_qkv_same_embed_dim"] = True
        if isinstance(module, nn.TransformerEncoder) and BEFORE in module.__dict__:
            module.use_nested_tensor = module.__dict__.pop(BEFORE)


def _holds_stand_in(encoder: nn.Module) -> bool:
    return any(isinstance(module, ReplacedAttention) for module in encoder.modules())
