"""MATLAB files, against what scipy wrote."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from unic.images.readers.matlab import read_mat


def test_structures_come_back_as_dicts_and_numbers_as_numbers(tmp_path: Path) -> None:
    entries = [("000001.jpg", 14, 0.5), ("bücher.jpg", 3, 1.5), ("a b.jpg", 91, -2.0)]
    fields = [("fname", object), ("class", object), ("score", object)]
    content = {"annotations": np.array(entries, dtype=fields), "other": np.zeros(3)}
    savemat(tmp_path / "annos.mat", content)
    found = read_mat(tmp_path / "annos.mat", "annotations")
    assert found == [{"fname": f, "class": c, "score": s} for f, c, s in entries]


def test_a_single_entry_is_a_list_too(tmp_path: Path) -> None:
    one = np.array([("1.jpg", 2)], dtype=[("fname", object), ("class", object)])
    savemat(tmp_path / "one.mat", {"annotations": one, "name": "crow"})
    assert read_mat(tmp_path / "one.mat", "annotations") == [{"fname": "1.jpg", "class": 2}]
    assert read_mat(tmp_path / "one.mat", "name") == ["crow"]


def test_refuses_a_file_without_the_variable(tmp_path: Path) -> None:
    savemat(tmp_path / "annos.mat", {"annotations": np.zeros(3)})
    message = r"annos\.mat must be a MATLAB file with class_names, .*KeyError: 'class_names'"
    with pytest.raises(ValueError, match=message):
        read_mat(tmp_path / "annos.mat", "class_names")


@pytest.mark.parametrize("kept", [0, 150])
def test_refuses_a_damaged_file(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "annos.mat"
    savemat(path, {"annotations": np.arange(100.0)})
    path.write_bytes(path.read_bytes()[:kept])
    message = f"{path} must be a MATLAB file with annotations, cannot read it"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_mat(path, "annotations")
