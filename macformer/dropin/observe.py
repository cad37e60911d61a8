"""Watch what an attention that was put in receives, and answer in its place."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from macformer.dropin.sites import NAME


class Call(NamedTuple):
    """What one attention is asked.

    Attributes:
        name: Of the module around it.
        attention: That which was put in.
    """

    name: str
    attention: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    key_padding_mask: Tensor | None

    def by(self, attention: Callable[..., Tensor]) -> Tensor:
        """Return what an attention answers."""
        return attention(self.query, self.key, self.value, key_padding_mask=self.key_padding_mask)


Answer = Callable[[Call], Tensor]

_answers: list[Answer] = []


def ask(
    module: nn.Module,
    attention: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
) -> Tensor:
    """Ask an attention, or who answers in its place."""
    if not _answers:
        return attention(query, key, value, key_padding_mask=key_padding_mask)
    name = module.__dict__[NAME]
    return _answers[-1](Call(name, attention, query, key, value, key_padding_mask))


@contextmanager
def answered(answer: Answer) -> Iterator[None]:
    """Let a function answer in the place of every attention that was put in, in any model."""
    _answers.append(answer)
    try:
        yield
    finally:
        _answers.pop()
