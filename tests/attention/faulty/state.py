"""Faults of a module's tensors."""

import torch
from faulty.sound import Sound
from torch import nn
from torch.nn.functional import softplus


class TakesProjection(Sound):
    """A nested module that YAML builds once, for all layers."""

    def __init__(self, *, projection, **shapes):
        super().__init__(num_features=2, **shapes)
        self.project = projection

    def phi(self, x):
        return softplus(self.project(x))


class PlainTensor(Sound):
    """A random matrix that is neither a buffer nor a parameter: not saved, not trained."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        plain = nn.Parameter(self.projection.double()).detach()
        del self.projection
        self.projection = plain

    def phi(self, x):
        return softplus(x @ self.projection.to(x.dtype))


class Oversized(Sound):
    def __init__(self, **shapes):
        super().__init__(**shapes)
        projection = self.projection
        del self.projection
        self.projection = nn.Parameter(projection)


class PrivateGenerator(Sound):
    """Features that no seed decides."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.projection.normal_(generator=torch.Generator().manual_seed(7))


class HiddenSizes(Sound):
    """Blocks so long that the few tokens of a test never fill one."""

    def __init__(self, *, block_size, **kwargs):
        super().__init__(**kwargs)
        self.block_size = block_size
