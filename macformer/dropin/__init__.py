"""Put attention of this project into existing models, of torch and of Hugging Face::

    from macformer.dropin import load, replace_attention, restore

    report = replace_attention(model, "rmfa_exp_scaled", ppsbn="with", layers=[3, 4])
    model.save_pretrained(folder)
    model = load(folder)
    restore(model)

The new attention is a child of the module whose attention it computes, so that its parameters and
random features are in the model's state, on its device and in its optimiser. Whatever would
silently run softmax in its place raises :class:`DropinError`.

:func:`encoder_classifier`, named by ``model=encoder``, puts a task's head on such a model.
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
