import io
import os
from pathlib import Path

import pytest

from unic.photos.running import Progress, alone


def test_a_line_a_job_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 10)
    progress.begin("Listing the images")
    progress.refresh("[1/2] ")
    progress.end()
    assert stream.getvalue().split(maxsplit=2) == ["0", "s", "Listing the images\n"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


def test_one_line_that_is_drawn_again_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((60, 20)))
    stream = Terminal()
    progress = Progress(stream, 10)
    progress.begin("Embedding the images of a folder with a very long name")
    progress.refresh("[1/9] ")
    shown = stream.getvalue().split("\r\x1b[K")
    assert "\n" not in stream.getvalue()
    assert shown[-1].startswith("0 s (about 10 s left)  [1/9] Embedding")
    assert all(len(line) < 60 for line in shown)
    progress.end()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_one_run_at_a_time_in_a_folder(tmp_path: Path) -> None:
    again = alone(tmp_path)
    with alone(tmp_path), pytest.raises(ValueError, match=r"another run is at work"), again:
        pass
    with alone(tmp_path):
        pass
