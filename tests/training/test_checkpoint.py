import logging
from pathlib import Path

import pytest
import torch

from unic.training.checkpoint import Checkpoint

STATE = {
    "parameters": [torch.arange(4.0), torch.ones(2, 3)],
    "generator": {"state": {"state": 2**127 + 1, "inc": 3}, "name": "PCG64"},
    "history": [{"epoch": 1, "loss": 0.1 + 0.2}],
    "past": None,
}


def test_a_state_survives_the_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "folder" / "checkpoint.pt", key="a")
    assert checkpoint.load() is None
    checkpoint.save(STATE)
    checkpoint.save(STATE | {"history": []})
    checkpoint.save(STATE)
    found = Checkpoint(checkpoint.path, key="a").load()
    assert found is not None
    assert [
        torch.equal(a, b) for a, b in zip(found.pop("parameters"), STATE["parameters"], strict=True)
    ] == [
        True,
        True,
    ]
    assert found == {k: v for k, v in STATE.items() if k != "parameters"}
    assert [p.name for p in checkpoint.path.parent.iterdir()] == ["checkpoint.pt"]
    checkpoint.remove()
    assert not checkpoint.path.exists()
    checkpoint.remove()


def test_a_state_of_another_key_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Checkpoint(tmp_path / "checkpoint.pt", key="a").save(STATE)
    with caplog.at_level(logging.INFO, "unic"):
        assert Checkpoint(tmp_path / "checkpoint.pt", key="b").load() is None
    assert "of other settings or inputs, the training starts anew" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken"])
def test_a_broken_file_is_left_with_a_warning(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    assert Checkpoint(tmp_path / "checkpoint.pt", key="a").load() is None
    assert "cannot be read, the training starts anew" in caplog.text
