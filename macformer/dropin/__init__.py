"""Attention of this project in models that exist, of torch and of Hugging Face::

    from macformer.dropin import load, replace_attention, restore

    report = replace_attention(model, "rmfa_exp_scaled", ppsbn="with", layers=[3, 4])
    model.save_pretrained(folder)
    model = load(folder)
    restore(model)

The new attention is a child of the module whose attention it computes, so that its parameters and
random features are in the model's state, on its device and in its optimiser. What would run softmax
in its place in silence raises :class:`DropinError`.

:func:`encoder_classifier`, which ``model=encoder`` names, puts a task of this harness on top.
"""

from macformer.dropin.encoder import PretrainedEncoder, encoder_classifier
from macformer.dropin.replace import Report, replace_attention, restore
from macformer.dropin.saving import load
from macformer.dropin.sites import DropinError
from macformer.dropin.transfer import transfer_attention

__all__ = [
    "DropinError",
    "PretrainedEncoder",
    "Report",
    "encoder_classifier",
    "load",
    "replace_attention",
    "restore",
    "transfer_attention",
]
