import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.explorer.exhibits import write_exhibit
from unic.cli import main
from unic.explorer.exhibits import open_exhibit


def test_it_tells_its_address_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    folder = write_exhibit(tmp_path / "results" / "toy")
    command = [sys.executable, "-m", "unic.cli", "explore", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "toy: 40 images\n"
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address)
        with urllib.request.urlopen(address, timeout=20) as page:
            assert b"UNIC" in page.read()
        process.send_signal(2)
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing must be the folder of an experiment, there is none"),
        (["a", "b", "c"], "results must be one folder, or two to compare, got 3"),
    ],
)
def test_wrong_uses_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_taken_port_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_exhibit(tmp_path / "results" / "toy")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["explore", str(folder), "--port", str(port)]) == 2
    assert "in use" in capsys.readouterr().err


def test_the_map_is_exported_for_other_viewers(tmp_path: Path) -> None:
    folder = write_exhibit(tmp_path / "results" / "toy")
    path = tmp_path / "map.parquet"
    assert main(["explore", str(folder), "--export", str(path)]) == 0
    table = pd.read_parquet(path)
    exhibit = open_exhibit(folder)
    assert table["path"].tolist() == exhibit.image_ids
    np.testing.assert_array_equal(table[["x", "y"]], exhibit.map.read("positions"))
    np.testing.assert_array_equal(np.stack(table["neighbors"]), exhibit.indices[:, 1:])
    assert {"cluster", "confidence", "union", "clean", "distances"} <= set(table)
