"""Prepared data in words."""

from itertools import zip_longest
from pathlib import Path

from tasks.store.manifest import combined_sha256, read_manifest


def describe(folder: Path) -> list[str]:
    """Describe each split of a prepared folder in a line, and each floor."""
    manifest = read_manifest(folder)
    names = manifest.get("classes", ())  # of own data; others are numbers
    lines = []
    for name, split in manifest["splits"].items():
        rows, num_labels = split["rows"], sum(split["class_counts"])
        quantiles = ", ".join(f"{key} {value}" for key, value in split["lengths"].items())
        shares = " ".join(
            f"{name} {100 * count / num_labels:.1f}".lstrip()
            for name, count in zip_longest(names, split["class_counts"], fillvalue="")
        )
        left_out = f" ({split['left_out']} left out)" if split["left_out"] else ""
        lines.append(
            f"  {name}: {rows:,} rows{left_out}, {split['tokens']:,} tokens, "
            f"lengths {quantiles}; classes {shares} %; sha256 {combined_sha256(split)}"
        )
    if left_out := manifest.get("left_out"):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items())
        lines.append(f"  left out: {reasons}")
    for name, floor in manifest.get("floors", {}).items():
        lines.append(f"  floor {100 * floor['accuracy']:.1f} %, {name}: {floor['recipe']}")
    return lines
