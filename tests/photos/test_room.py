import shutil
from pathlib import Path

import pytest

from unic.photos.room import check_room, find_free


def test_a_folder_to_come_has_the_disk_of_the_one_above(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert find_free(tmp_path / "results" / "mine") == pytest.approx(free, rel=0.01)


def test_refuses_a_disk_without_room(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path, free // 2)
    with pytest.raises(OSError, match=r"must have room for .* MB, .* MB are free"):
        check_room(tmp_path, 10 * free)
