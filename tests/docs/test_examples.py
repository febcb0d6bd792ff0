"""The examples in docstrings of the package give what they say."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"^\s*>>> ", re.MULTILINE)
COUNTS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): count
    for path in sorted((ROOT / "unic").rglob("*.py"))
    if (count := len(EXAMPLE.findall(path.read_text("utf-8"))))
}


def test_there_are_examples() -> None:
    assert {"unic.evaluation.metrics", "unic.neighbors.mining"} <= set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert failed == 0, capsys.readouterr().out
    assert attempted == COUNTS[name]  # none lies where it is not looked for
