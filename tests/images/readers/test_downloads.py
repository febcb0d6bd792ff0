"""Downloading from an address on this machine, where the real ones may be out of reach."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from torchvision.datasets import FashionMNIST

from tests.tiny import write_fashion_mnist
from unic.cli import main
from unic.images.datasets import list_images
from unic.images.readers.downloads import DOWNLOADABLE, download
from unic.images.readers.layouts import LAYOUTS


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of small archives, which torchvision takes for those of Fashion-MNIST."""
    folder = tmp_path / "server"
    write_fashion_mnist(folder, compressed=True)
    raw = folder / "FashionMNIST" / "raw"
    handler = functools.partial(QuietHandler, directory=str(raw))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    sums = [(p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in sorted(raw.iterdir())]
    monkeypatch.setattr(FashionMNIST, "mirrors", [url])
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    yield url
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("address")
def test_gets_files_to_where_they_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "data")
    assert main(["data", "fashion_mnist", "--root", root, "--download"]) == 1  # a small copy
    assert "differs" in capsys.readouterr().out
    assert len(list_images("fashion_mnist", root=root)["train"]) == 30


@pytest.mark.usefixtures("address")
def test_refuses_other_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [(name, "0" * 32) for name, _ in FashionMNIST.resources]
    monkeypatch.setattr(FashionMNIST, "resources", wrong)
    with pytest.raises(OSError, match=r"(?s)cannot download fashion_mnist to .*corrupted"):
        download("fashion_mnist", root=str(tmp_path / "data"))


def test_names_an_address_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    with pytest.raises(OSError, match="cannot download fashion_mnist to"):
        download("fashion_mnist", root=str(tmp_path))


@pytest.mark.parametrize("name", ["stanford_cars", "imagenet50", "folder"])
def test_refuses_a_set_without_an_address(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"works for stl10, .*; {name} must be got by hand"):
        download(name, root=str(tmp_path))


def test_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stl10", "--download"]) == 2
    assert "--download needs --root" in capsys.readouterr().err


def test_the_layouts_say_what_can_be_downloaded() -> None:
    assert {name for name, text in LAYOUTS.items() if "--download" in text} == set(DOWNLOADABLE)
