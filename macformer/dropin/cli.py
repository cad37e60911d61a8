"""Say layer by layer what other attention would cost a model, and bring, before any training.

    macformer-inspect model.path=my/encoder --config-dir my task=logs [--config my_rows.yaml]

With model.start, and the options of that run's attention, what it has learnt is one more row.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import configs
from macformer.attention import SoftmaxAttention
from macformer.dropin.inspection import draw, inspect_layers, limit_of, load_batches, summarise
from macformer.dropin.replace import find_sites, replace_attention
from macformer.dropin.sites import inserted_attention
from macformer.plotting import save
from macformer.runs.allowed import COUNT, TEXT, list_of, number, read_settings, whole
from macformer.runs.build import build_attention, build_model
from macformer.runs.config import compose
from macformer.runs.help import make_parser
from macformer.whole_file import replaced

DEFAULT_CONFIG = Path(configs.__path__[0]) / "inspect.yaml"
ALLOWED = {
    "rows": list_of(TEXT),
    "num_batches": whole(2),  # the first warms up
    "batch_size": COUNT,
    "error": number(lambda value: value >= 0, "of at least 0"),
}
CHOSEN = ("model=encoder", "recipe=finetune")  # unless the command line chooses others


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake of the user gives one line and exit code 2."""
    parser = make_parser("macformer-inspect", __doc__ or "")
    parser.add_argument("overrides", nargs="*", help="options of macformer-train: model, task")
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        help="the rows, and how much data (default: configs/inspect.yaml)",
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/inspect"), help="a folder")
    args = parser.parse_intermixed_args(arguments)
    try:
        inspect(args.overrides, args.config, args.config_dir, args.output)
    except (ValueError, OSError) as error:
        print(f"macformer-inspect: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("macformer-inspect: interrupted", file=sys.stderr)
        return 130
    return 0


def inspect(
    overrides: Sequence[str], config: Path, config_dirs: Sequence[Path], output: Path
) -> None:
    """Print the table, and leave it, its plot and all measurements in a folder.

    Raises:
        ValueError: If the model, the task or a row cannot be built.
    """
    settings = read_settings(config, ALLOWED)
    chosen = [*CHOSEN, *overrides]
    cfg = compose(*chosen, config_dirs=config_dirs)
    rows = {
        row: partial(build_attention, compose(*row.split(), config_dirs=config_dirs))
        for row in settings.rows
    }
    torch.manual_seed(cfg.seed)
    model: Any = build_model(cfg)
    learnt = {}
    if cfg.model.get("start") is not None:
        row = [o for o in chosen if o.startswith(("attention", "ppsbn"))]
        learnt[" ".join([*row, "learnt"])] = inserted_attention(model)
    softmax = partial(SoftmaxAttention, dropout=0.0)
    replace_attention(model.encoder, softmax, max_seq_len=cfg.padded_len)
    layers = [site.name for site in find_sites(model.encoder)]
    batches = load_batches(cfg, num_batches=settings.num_batches, batch_size=settings.batch_size)
    output.mkdir(parents=True, exist_ok=True)
    lines, seconds = inspect_layers(model, batches, rows, learnt=learnt, max_seq_len=cfg.padded_len)
    table = summarise(lines, seconds, layers=layers, error=settings.error)
    share, limit = limit_of(lines, seconds)
    text = table.to_markdown(index=False, floatfmt=".2f")
    longest = max(batch["inputs"].shape[-1] for batch in batches)
    text += (
        f"\n\nMeasured on {batches[0]['inputs'].device}, whatever trainer.accelerator says, with "
        f"{torch.get_num_threads()} threads and seed {cfg.seed}.\n\n"
        f"At up to {longest} tokens softmax takes {100 * share:.0f} % of the time: no attention "
        f"makes this model more than {limit:.2f} times as fast. An error of 1 is that of the mean "
        f"of the values; up to {settings.error:g} a layer is named as one to replace.\n"
    )
    with replaced(output / "table.md") as file:
        file.write(text.encode())
    with replaced(output / "lines.csv") as file:
        lines.to_csv(file, index=False)
    save(draw(lines, layers=layers), output / "errors")
    print(f"{text}\nwrote {output}/table.md, lines.csv, errors.png")


if __name__ == "__main__":
    sys.exit(main())
