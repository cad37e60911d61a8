"""One clock, one set of units and one way to count, for everything that is measured."""

from macformer.measuring.clock import GIB, MIB, check_device, now
from macformer.measuring.counts import Counts, count_batch
from macformer.measuring.flops import count_flops
from macformer.measuring.memory import measure_peak

__all__ = [
    "GIB",
    "MIB",
    "Counts",
    "check_device",
    "count_batch",
    "count_flops",
    "measure_peak",
    "now",
]
