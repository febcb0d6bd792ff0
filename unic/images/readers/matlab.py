"""MATLAB files, in which some data sets keep their lists.

scipy's reader can crash the interpreter on a damaged file, so it runs in a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def read_mat(path: Path, variable: str) -> list[Any]:
    """Read a variable as a list of plain values: structures are dicts.

    Args:
        path: A file of MATLAB's format 5.
        variable: Name of a list, or of a single entry.

    Raises:
        ValueError: If the file is damaged, or has no such variable.
    """
    command = [sys.executable, "-m", "unic.images.readers.matlab", str(path), variable]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        why = last if finished.returncode == 1 else f"scipy crashed ({finished.returncode})"
        raise ValueError(f"{path} must be a MATLAB file with {variable}, cannot read it: {why}")
    found = json.loads(finished.stdout)
    return found if isinstance(found, list) else [found]


def _print_variable(path: str, variable: str) -> None:
    """What runs in the process: print a variable as JSON."""
    from scipy.io import loadmat  # takes a while to import

    found = loadmat(path, simplify_cells=True, variable_names=[variable])[variable]
    print(json.dumps(found, default=lambda value: value.tolist()))


if __name__ == "__main__":
    _print_variable(*sys.argv[1:])
