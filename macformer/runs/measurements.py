"""What the callbacks of a run have measured, as metrics.json, W&B and the terminal show it."""

from typing import Any

from torch import nn

from macformer.attention import SoftmaxAttention
from macformer.callbacks import DeviceUse, PeakMemory, Throughput
from macformer.runs.build import Run


def measurements(built: Run) -> dict[str, Any]:
    """Collect what a finished run has measured; what nothing watched is blank."""
    data: Any = built.data
    throughput = built.callback(Throughput)
    memory = built.callback(PeakMemory)
    use = built.callback(DeviceUse)
    rows_of_a_step = data.batch_size * data.accumulate * built.trainer.world_size
    return {
        "num_parameters": sum(p.numel() for p in built.module.model.parameters()),
        "num_examples": data.num_examples,
        "majority_rate": data.majority_rate("test"),
        "floors": data.floors,
        "resident_data_gib": memory and memory.resident_gib,
        "softmax_kernel": {
            phase: _kernels(built.module.model, phase) for phase in ("train", "inference")
        },
        "train": {
            "steps": built.trainer.global_step,
            "loss": built.module.train_loss,
            "peak_memory_gib": memory and memory.train_gib,
            **(throughput.train if throughput else {}),
        },
        "use": {
            "seconds": use and use.seconds,
            "joules": use and use.joules,
            "energy_source": use and use.energy_source,
            "num_devices": built.trainer.world_size,
            "examples": built.trainer.global_step * rows_of_a_step,  # trained on
        },
        "inference": {
            "peak_memory_gib": memory and memory.inference_gib,
            **(throughput.inference if throughput else {}),
        },
    }


def _kernels(model: nn.Module, phase: str) -> str | None:
    """Name the kernels that softmax ran through, where a GPU has several."""
    softmax = [module for module in model.modules() if isinstance(module, SoftmaxAttention)]
    return ", ".join(sorted({s.kernels[phase] for s in softmax if phase in s.kernels})) or None


def flat(metrics: dict[str, Any]) -> dict[str, float | int]:
    """Name the results as W&B shows them."""
    values = {
        "test/accuracy": metrics["accuracy"]["best"]["test"],
        "test/accuracy_last": metrics["accuracy"]["last"]["test"],
        "test/majority_rate": metrics["majority_rate"],
        "num_parameters": metrics["num_parameters"],
    }
    for name, value in metrics.get("scores", {}).get("best", {}).get("test", {}).items():
        values[f"test/{name}"] = value
    for phase in ("train", "inference"):
        for name, value in metrics[phase].items():
            if name.endswith(("_per_second", "_gib")) and value is not None:
                values[f"perf/{phase}_{name}"] = value
    return values


def summary(metrics: dict[str, Any]) -> str:
    """Say in one line what a run has reached."""
    best, last = metrics["accuracy"]["best"], metrics["accuracy"]["last"]
    return (
        f"{metrics['name']}: test accuracy {100 * best['test']:.2f} % "
        f"(best validation, step {best['step']}), {100 * last['test']:.2f} % (last step); "
        f"majority class {100 * metrics['majority_rate']:.2f} %"
    )
