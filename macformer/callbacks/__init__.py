"""What a run measures, keeps and shows besides its curves."""

from macformer.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from macformer.callbacks.device_use import DeviceUse
from macformer.callbacks.heartbeat import Heartbeat
from macformer.callbacks.peak_memory import MemoryMeter, PeakMemory
from macformer.callbacks.progress import Progress
from macformer.callbacks.random_states import RandomStates
from macformer.callbacks.throughput import Stopwatch, Throughput, summarise

__all__ = [
    "BestCheckpoint",
    "DeviceUse",
    "Heartbeat",
    "LastCheckpoint",
    "MemoryMeter",
    "PeakMemory",
    "Progress",
    "RandomStates",
    "Stopwatch",
    "Throughput",
    "summarise",
]
