"""Prepared data in words."""

from pathlib import Path

from tasks.store.manifest import combined_sha256, read_manifest


def describe(folder: Path) -> list[str]:
    """Describe each split of a prepared folder in a line, and each floor."""
    manifest = read_manifest(folder)
    lines = []
    for split_name, split in manifest["splits"].items():
        rows, counts = split["rows"], split["class_counts"]
        names = manifest.get("classes") or [""] * len(counts)  # only own data say theirs
        quantiles = ", ".join(f"{key} {value}" for key, value in split["lengths"].items())
        shares = " ".join(
            f"{name} {100 * count / sum(counts):.1f}".lstrip()
            for name, count in zip(names, counts, strict=True)
        )
        left_out = f" ({split['left_out']} left out)" if split["left_out"] else ""
        lines.append(
            f"  {split_name}: {rows:,} rows{left_out}, {split['tokens']:,} tokens, "
            f"lengths {quantiles}; classes {shares} %; sha256 {combined_sha256(split)}"
        )
    if left_out := manifest.get("left_out"):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items())
        lines.append(f"  left out: {reasons}")
    for name, floor in manifest.get("floors", {}).items():
        lines.append(f"  floor {100 * floor['accuracy']:.1f} %, {name}: {floor['recipe']}")
    return lines
