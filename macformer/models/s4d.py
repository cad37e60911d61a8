"""A mixer without queries, keys and values: diagonal state spaces (Gu et al. 2022, 2206.11893)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, glu

from macformer.ops.precision import accumulation_dtype


class S4D(nn.Module):
    r"""Convolve each channel with the responses of a diagonal state space, forwards and backwards.

    .. math::
        y_n = d\, u_n + \sum_{m \ge 0} K_m u_{n - m} + \sum_{m \ge 1} K'_m u_{n + m}, \qquad
        K_m = 2\, \mathrm{Re} \sum_s c_s \frac{e^{\Delta a_s} - 1}{a_s} e^{\Delta a_s m}

    then ``GLU(W gelu(y) + b)``: S4D-Lin, :math:`a_s = -1/2 + i \pi s` at the start, discretised by
    a zero-order hold, its step :math:`\Delta` drawn log-uniformly for each channel. Both directions
    share a and :math:`\Delta` and have each their own c.

    Kernels are computed as far as a batch is long, and the transform is long enough that nothing
    wraps around: a value at padding is zero, and neither it nor the padded length has influence.

    Unlike the authors' training of it, all parameters share the optimiser's rate and weight decay;
    theirs leave ``log_step``, ``log_decay`` and ``frequency`` without decay.

    Args:
        state_dim: Real size of each channel's state: half as many complex numbers, each of which
            stands for itself and its conjugate.
        min_step: The least :math:`\Delta` at the start.
        max_step: The largest.

    Raises:
        ValueError: If state_dim is odd or below 2, or the steps are no positive interval.
    """

    def __init__(self, *, embed_dim: int, state_dim: int, min_step: float, max_step: float):
        super().__init__()
        if state_dim < 2 or state_dim % 2:
            raise ValueError(f"state_dim is {state_dim}; an even number from 2 on is needed")
        if not 0 < min_step <= max_step:
            raise ValueError(f"0 < min_step <= max_step is needed, not {min_step} and {max_step}")
        num_states, span = state_dim // 2, math.log(max_step / min_step)
        frequency = math.pi * torch.arange(num_states).expand(embed_dim, -1)
        self.log_step = nn.Parameter(math.log(min_step) + span * torch.rand(embed_dim))
        self.log_decay = nn.Parameter(torch.full((embed_dim, num_states), math.log(0.5)))
        self.frequency = nn.Parameter(frequency.clone())
        # real and imaginary parts of a complex normal number, whose variance is one in all
        self.output = nn.Parameter(torch.randn(2, embed_dim, num_states, 2) / math.sqrt(2))
        self.skip = nn.Parameter(torch.randn(embed_dim))
        self.out_proj = nn.Linear(embed_dim, 2 * embed_dim)

    def kernels(self, length: int) -> Float[Tensor, "2 D N"]:
        """Return the response of each channel to a unit impulse, forwards and backwards.

        Powers are taken in two factors, :math:`e^{z (iJ + j)} = e^{z iJ} e^{z j}`, whose product
        sums over the state: nothing as large as state times length exists. In float32 at least,
        since a phase of bfloat16 is wrong after a few tokens.
        """
        block = math.isqrt(length - 1) + 1
        with torch.autocast(self.log_step.device.type, enabled=False):
            step, decay = _widened(self.log_step).exp(), _widened(self.log_decay).exp()
            poles = torch.complex(-decay, _widened(self.frequency))
            exponents = (poles * step[:, None])[..., None]
            output = torch.view_as_complex(_widened(self.output))
            weights = output * (torch.expm1(exponents[..., 0]) / poles)
            times = torch.arange(block, device=poles.device)
            fine, coarse = torch.exp(exponents * times), torch.exp(exponents * (block * times))
            left = 2 * weights[..., None] * coarse
            left = torch.cat([left.real, -left.imag], dim=-2)  # the real part of a product
            right = torch.cat([fine.real, fine.imag], dim=-2)
            return (left.mT @ right).flatten(-2)[..., :length]

    def state_size(self, seq_len: int) -> int:
        """Count the real numbers of each channel's state in either direction."""
        return 2 * 2 * self.frequency.numel()

    def forward(
        self, x: Float[Tensor, "B N D"], key_padding_mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N D"]:
        if key_padding_mask is not None:
            x = x.masked_fill(key_padding_mask[..., None], 0)
        skip = _widened(self.skip)
        u = x.mT.to(skip.dtype)
        y = _convolve(u, self.kernels(u.shape[-1])) + skip[:, None] * u
        return glu(self.out_proj(gelu(y.mT).to(x.dtype)), dim=-1)


def _widened(x: Tensor) -> Tensor:
    return x.to(accumulation_dtype(x))


def _convolve(u: Float[Tensor, "B D N"], kernels: Float[Tensor, "2 D N"]) -> Float[Tensor, "B D N"]:
    """Convolve with the first kernel forwards and the second backwards, without its value at 0.

    Both lie on one circle of twice the length, the second running back from its end.
    """
    length = u.shape[-1]
    forwards, backwards = kernels
    gap = backwards.new_zeros(len(backwards), 1)
    circle = torch.cat([forwards, gap, backwards[:, 1:].flip(-1)], dim=-1)
    with torch.autocast(u.device.type, enabled=False):
        transformed = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(circle)
        return torch.fft.irfft(transformed, n=2 * length)[..., :length]
