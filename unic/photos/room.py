"""Room on the disk that a folder is on, or will be on."""

import shutil
from pathlib import Path


def find_free(folder: Path) -> int:
    """Free bytes of the disk of a folder, which may not be there yet."""
    folder = folder.absolute()
    place = next(each for each in (folder, *folder.parents) if each.is_dir())
    return shutil.disk_usage(place).free


def check_room(folder: Path, n_bytes: int) -> None:
    """Refuse to write more than the disk of a folder has room for.

    Raises:
        OSError: Says how much is needed, and free.
    """
    free = find_free(folder)
    if n_bytes > free:
        raise OSError(
            f"the disk of {folder} must have room for {n_bytes / 1e6:,.0f} MB, "
            f"{free / 1e6:,.0f} MB are free"
        )
