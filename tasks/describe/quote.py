"""Write texts into YAML so that Hydra reads exactly them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tasks.errors import check_text

# Breaks of lines to YAML, which JSON leaves as they stand.
_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")


def quoted(text: str) -> str:
    """Quote a text: never a number, a truth value, null or a date.

    Raises:
        DataError: If it is one that no configuration can hold.
    """
    check_text(text)
    text = json.dumps(text, ensure_ascii=False)
    return _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def quoted_list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(quoted, texts))}]"


def quoted_or_null(text: str | None) -> str:
    return "null" if text is None else quoted(text)


def quoted_path(pattern: str | None) -> str:
    """Quote a path or a pattern as one that does not depend on where a command is called."""
    return quoted_or_null(pattern and str(Path(pattern).expanduser().absolute()))
