"""Hold each attention and mixer in a folder to the contract, and train it for a minute.

    macformer-check my_variants
    macformer-check my_variants --steps 50 --out outputs task.num_workers=2

Training is on short ListOps (task=listops_short recipe=smoke); further options are those of
macformer-train. The exit code is 0 if every variant is sound, 1 if one is not, and 2 for a call
that cannot be followed.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from macformer.check.variants import find_own_variants


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the variants of a folder, and print the verdicts."""
    parser = argparse.ArgumentParser(
        prog="macformer-check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="holds attention/*.yaml, mixer/*.yaml, or both")
    parser.add_argument("options", nargs="*", help="options of macformer-train")
    parser.add_argument("--seconds", type=float, default=60, help="limit of a training (60)")
    parser.add_argument("--steps", type=int, help="steps of a training (those of recipe=smoke)")
    parser.add_argument("--out", type=Path, help="keep the runs and their data there")
    args = parser.parse_intermixed_args(arguments)
    for name in ("seconds", "steps"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            return _refuse(f"--{name} is {value}; it must be above 0")
    if find_spec("pytest") is None:
        return _refuse("the contract is a suite of pytest, which comes with the extra check")
    try:
        with TemporaryDirectory(prefix="macformer-check-") as scratch:
            out = Path(scratch) if args.out is None else args.out.expanduser().resolve()
            limits = {"steps": args.steps, "seconds": args.seconds}
            sound = check(args.folder, out=out, options=args.options, **limits)
    except (ValueError, OSError, RuntimeError) as error:
        return _refuse(str(error))
    return 0 if sound else 1


def check(
    folder: Path, *, out: Path, steps: int | None, seconds: float, options: Sequence[str]
) -> bool:
    """Check every variant of a folder, print table and reasons, and say whether all are sound.

    Args:
        out: Where the runs and their data go.
        steps: Of a training, at most; None for as many as the recipe has.
        seconds: After which a training ends.
        options: Further ones of macformer-train.

    Raises:
        ValueError: If the folder has no variants.
        SuiteError: If the suite of the contract did not run to its end.
    """
    from macformer.check.contract import hold_to_contract  # torch takes seconds
    from macformer.check.training import train
    from macformer.check.verdict import Verdict, explain, tabulate

    folder = folder.expanduser().resolve()
    variants = find_own_variants(folder)
    names = ", ".join(str(variant) for variant in variants)
    print(f"holding to the contract: {names}", flush=True)
    outcomes = hold_to_contract(folder)
    verdicts = []
    for variant in variants:
        print(f"training {variant}", flush=True)
        training = train(variant, out=out, steps=steps, seconds=seconds, options=options)
        own = [outcome for outcome in outcomes if outcome.variant == str(variant)]
        verdicts.append(Verdict(variant, own, training))
    lines = [line for verdict in verdicts for line in explain(verdict)]
    print("\n".join(["", tabulate(verdicts), *[""] * bool(lines), *lines]))
    return all(verdict.is_sound for verdict in verdicts)


def _refuse(message: str) -> int:
    print(f"macformer-check: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
