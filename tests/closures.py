"""The package modules that the digest of each script covers, in a form to be read and compared.

``python -m tests.closures > tests/storage/closures.txt`` after a change that is meant.
"""

from itertools import groupby
from pathlib import Path, PurePosixPath

from unic.storage.digests import imported_modules

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"


def modules_of(script: str) -> list[PurePosixPath]:
    """The modules that a script is built on, by their paths in the package, a folder at a time."""
    paths = map(PurePosixPath, imported_modules(SCRIPTS / script))
    modules = [path.relative_to("unic").with_suffix("") for path in paths]
    return sorted(modules, key=lambda module: (module.parent, module))


def list_closures() -> str:
    """Each script with the number of its modules, and below it these, a line a folder."""
    lines = []
    for script in sorted(path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.py")):
        modules = modules_of(script)
        lines.append(f"{script}: {len(modules)}")
        for folder, members in groupby(modules, key=lambda module: module.parent):
            lines.append(f"    {folder}: {' '.join(module.name for module in members)}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(list_closures(), end="")
