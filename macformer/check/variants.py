"""What a user's folder of configurations adds to this project's variants."""

from pathlib import Path

from macformer.runs.variants import OURS, Variant, find_variants

GROUPS = ("attention", "mixer")


def find_own_variants(folder: Path) -> list[Variant]:
    """List what a user's folder adds to this project's variants.

    Raises:
        ValueError: If it adds nothing, or one of this project's files would win over one of its.
    """
    found = find_variants(folder, *GROUPS)
    hidden = {str(variant) for variant in found} & set(map(str, find_variants(OURS, *GROUPS)))
    if hidden:
        raise ValueError(f"{folder}: {', '.join(sorted(hidden))} exist already; rename yours")
    if not found:
        raise ValueError(f"{folder} has no attention/*.yaml and no mixer/*.yaml")
    return found
