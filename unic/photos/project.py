"""Where the workflow lies: in the checkout, or in the installed package."""

from pathlib import Path

import unic

PACKAGE = Path(unic.__file__).parent
PLACES = (PACKAGE / "project", PACKAGE.parent)  # of a wheel; of a checkout


def find_snakefile() -> Path:
    """The Snakefile of the workflow.

    Raises:
        FileNotFoundError: If it is in neither place.
    """
    for place in PLACES:
        if (place / "Snakefile").is_file():
            return place / "Snakefile"
    raise FileNotFoundError(
        f"the workflow must be in {PLACES[0]} or {PLACES[1]}; install unic anew"
    )
