"""A pretrained encoder in this harness: any row in its layers, any task of text on top."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from macformer.attention.contract import state_size
from macformer.dropin.replace import find_sites, replace_attention
from macformer.dropin.rows import Factory
from macformer.dropin.sites import DropinError, Layers, inserted_attention
from macformer.models import SequenceClassifier
from macformer.record import CHECKPOINTS_NAME
from macformer.runs.checkpoint import load_weights

log = logging.getLogger(__name__)


class PretrainedEncoder(nn.Module):
    """Give a model of transformers what a batch holds, and return its last states.

    In a batch id 0 is padding, and what the tokenizer of a task numbers from 0 begins at 1: the
    model gets the tokenizer's own numbers, and at padding those that it expects there.
    """

    num_front_tokens = 0

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.padding_id = model.config.pad_token_id or 0
        self._sizes = {site.name: (site.num_heads, site.head_dim) for site in find_sites(self)}

    @property
    def embed_dim(self) -> int:
        return self.model.config.hidden_size

    def state_size(self, seq_len: int) -> int:
        """Count the numbers that all layers keep of a sequence; those with softmax all of it.

        Layers that share one attention, as ALBERT's, keep their own each.
        """
        num_calls = self._count_calls()
        kept = {name: 2 * seq_len * size for name, (_, size) in self._sizes.items()}
        for name, child in inserted_attention(self).items():
            size = self._sizes[name][1]
            kept[name] = state_size(child, seq_len=seq_len, head_dim=size, value_dim=size)
        return sum(
            num_calls[name] * num_heads * kept[name] for name, (num_heads, _) in self._sizes.items()
        )

    @torch.no_grad()
    def _count_calls(self) -> Counter[str]:
        """Count how often each attention is called in a pass."""
        num_calls: Counter[str] = Counter()
        handles = [
            self.get_submodule(name).register_forward_pre_hook(partial(_count, num_calls, name))
            for name in self._sizes
        ]
        training = self.training
        try:
            self.eval()(torch.ones(1, 2, dtype=torch.long, device=self.model.device))
        finally:
            self.train(training)
            for handle in handles:
                handle.remove()
        return num_calls

    def forward(
        self, inputs: Int[Tensor, "B N"], key_padding_mask: Bool[Tensor, "B N"] | None = None
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"] | None]:
        """Return the states and the mask."""
        ids, mask = inputs - 1, None
        if key_padding_mask is not None:
            ids = ids.masked_fill(key_padding_mask, self.padding_id)
            mask = (~key_padding_mask).long()
        out = self.model(input_ids=ids, attention_mask=mask)
        return out.last_hidden_state, key_padding_mask


def _count(num_calls: Counter[str], name: str, *args: Any) -> None:
    num_calls[name] += 1


def encoder_classifier(
    *,
    path: str | None,
    config: Mapping[str, Any] | None,
    layers: Layers | None,
    start: str | None,
    attention: Factory,
    vocab_size: int,
    max_seq_len: int,
    pooling: Callable[..., Any],
    head: Callable[..., nn.Module],
) -> SequenceClassifier:
    """Build the classifier of a task around an encoder with another attention.

    Args:
        path: A folder that ``save_pretrained`` wrote, with its weights; nothing is downloaded.
        config: In its place the values of a configuration, ``model_type`` among them, for a model
            with random weights.
        layers: Which attention to replace, as in
            :func:`macformer.dropin.replace_attention`; None for all of which softmax need not stay.
        start: The folder of a run of the same model and row, whose best weights to start from; None
            for those of ``path``.
        attention: The factory of the row.
        vocab_size: Ids of the task: the model's, and one more for padding.

    Raises:
        DropinError: If the model cannot be had, does not fit the task, or nothing of it can be
            replaced.
        CheckpointError: If the weights to start from are missing or of another model.
    """
    model = _open(path, config, vocab_size=vocab_size)
    _check_sizes(model, vocab_size=vocab_size, max_seq_len=max_seq_len)
    encoder: Any = PretrainedEncoder(model)
    report = replace_attention(encoder, attention, layers=layers, max_seq_len=max_seq_len)
    log.info("%s", report)

    def give(*, embed_dim: int, num_front_tokens: int) -> Any:
        if num_front_tokens:
            raise DropinError(
                "the pooling wants a learnt token in front, and a pretrained encoder has its own; "
                "use model.pooling._target_=macformer.models.FirstPooling, or MeanPooling"
            )
        return encoder

    classifier = SequenceClassifier(
        embed_dim=encoder.embed_dim, encoder=give, pooling=pooling, head=head
    )
    if start is not None:
        load_weights(classifier, Path(start).expanduser() / CHECKPOINTS_NAME / "best.ckpt")
    return classifier


def _open(path: str | None, config: Mapping[str, Any] | None, *, vocab_size: int) -> Any:
    if (path is None) == (config is None):
        raise DropinError(
            "model=encoder needs model.path=FOLDER, or model.config={model_type: bert, ...} for "
            "random weights; one of the two"
        )
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DropinError(
            'model=encoder needs transformers: pip install "macformer[hf]"'
        ) from error
    if path is None:
        values: dict[str, Any] = {"vocab_size": vocab_size - 1, **(config or {})}
        if "model_type" not in values:
            raise DropinError("model.config has no model_type; give one, as bert or modernbert")
        kind = values.pop("model_type")
        values = _missing_tokens(transformers, kind, values["vocab_size"]) | values
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **values))
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        raise DropinError(f"model.path is {path}, which is no folder of a model: no config.json")
    if getattr(transformers.AutoConfig.from_pretrained(folder), "macformer", None):
        raise DropinError(
            f"{path} was saved with another attention; macformer.dropin.load and restore it, and "
            "save what is to start from"
        )
    transformers.logging.disable_progress_bar()
    return transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )


def _missing_tokens(transformers: Any, kind: str, vocab_size: int) -> dict[str, None]:
    """Return the special tokens of a kind of model that stand outside a smaller vocabulary."""
    usual = vars(transformers.AutoConfig.for_model(kind))
    return {
        name: None
        for name, value in usual.items()
        if name.endswith("_token_id") and isinstance(value, int) and value >= vocab_size
    }


def _check_sizes(model: Any, *, vocab_size: int, max_seq_len: int) -> None:
    """Refuse ids of another tokenizer, and sequences that a model has no positions for."""
    own = model.config.vocab_size
    if own != vocab_size - 1:
        raise DropinError(
            f"task.vocab_size is {vocab_size}, and the model knows {own} tokens and no padding of "
            f"a batch: with its tokenizer, task.tokenizer=FOLDER/tokenizer.json, it is {own + 1}"
        )
    from macformer.dropin.huggingface import num_positions  # transformers is there by now

    positions = num_positions(model)
    if positions is not None and max_seq_len > positions:
        raise DropinError(
            f"padded_len is {max_seq_len}, and the model has positions for {positions} tokens; use "
            f"max_seq_len={positions}"
        )
