from pathlib import Path

import pytest

from unic.photos.project import PACKAGE, find_snakefile


def test_the_workflow_of_the_checkout_is_found() -> None:
    assert find_snakefile() == PACKAGE.parent / "Snakefile"


def test_that_of_a_wheel_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, checkout = tmp_path / "wheel", tmp_path / "checkout"
    monkeypatch.setattr("unic.photos.project.PLACES", (wheel, checkout))
    with pytest.raises(FileNotFoundError, match=r"the workflow must be in .*; install unic anew"):
        find_snakefile()
    for place in (checkout, wheel):
        place.mkdir()
        (place / "Snakefile").write_text("")
        assert find_snakefile() == place / "Snakefile"
