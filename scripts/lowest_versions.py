"""Print the lowest version that pyproject.toml allows of each requirement, as pip's constraints.

python scripts/lowest_versions.py > lowest.txt && pip install -e ".[dev]" -c lowest.txt

torch is left out, of which the command line names the build, and so are tools that no test runs.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
LOWER_BOUND = re.compile(r"([\w.-]+)(?:\[.*?\])?>=([\w.]+)")
LEFT_OUT = {"torch", "ruff", "pyright", "pandas-stubs", "build"}


def lowest_versions() -> dict[str, str]:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = (LOWER_BOUND.match(requirement) for group in groups for requirement in group)
    return {match[1]: match[2] for match in found if match and match[1] not in LEFT_OUT}


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in lowest_versions().items()))
