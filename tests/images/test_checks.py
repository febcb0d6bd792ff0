from pathlib import Path

import numpy as np
import pytest

from tests.tiny import WRITERS, write_folder, write_manifest, write_pickle, write_stl10
from unic.cli import main
from unic.images.checks import EXPECTED, check_dataset
from unic.images.datasets import DATASETS


def rows(text: str) -> dict[str, list[str]]:
    """Lines of the table: what, then found, expected and maybe a remark."""
    found = [line.rsplit("  ") for line in text.splitlines()[1:]]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in found]
    return {line[0]: line[1:] for line in cells}


@pytest.mark.parametrize(
    "name", [name for name in WRITERS if " " not in name and name not in ("folder", "manifest")]
)
def test_a_small_copy_differs_from_the_whole(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = WRITERS[name](tmp_path)
    assert main(["data", name, "--root", tiny.root]) == 1
    shown = rows(capsys.readouterr().out)
    for split, expected in (("train", EXPECTED[name].n_train), ("test", EXPECTED[name].n_test)):
        n_images = str(len(tiny.labels[split]))
        assert shown[f"{split} images"] == [n_images, str(expected), "differs"]
        counts = np.bincount(tiny.labels[split], minlength=len(tiny.class_names))
        assert shown[f"{split} images of a class"][0] == f"{counts.min()} to {counts.max()}"
    assert shown["classes"][:2] == [str(len(tiny.class_names)), str(EXPECTED[name].n_classes)]
    assert "x" in shown["size of the first image"][0]


def test_the_digits_are_as_expected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "digits"]) == 0
    shown = capsys.readouterr().out
    assert rows(shown)["train images"] == ["1438", "1438"]
    assert "differs" not in shown


def test_the_whole_of_cifar10_is_as_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many images as the real one has, but black: labels decide the counts."""
    folder = tmp_path / "cifar-10-batches-py"
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 1000))
    names = [f"data_batch_{number}" for number in range(1, 6)]
    for name in (*names, "test_batch"):
        black = np.zeros((10000, 3072), dtype=np.uint8)
        write_pickle(folder / name, {"data": black, "labels": labels.tolist()})
    write_pickle(folder / "batches.meta", {"label_names": [str(n) for n in range(10)]})
    assert main(["data", "cifar10", "--root", str(tmp_path)]) == 0
    shown = rows(capsys.readouterr().out)
    assert shown["labeled images of the published GCD split"] == ["12500", "12500"]
    assert shown["size of the first image"] == ["32 x 32", "-"]


@pytest.mark.parametrize("labeled", [True, False])
def test_own_images_are_counted(
    labeled: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = write_manifest(tmp_path, labeled=labeled)
    assert main(["data", "manifest", "--manifest", str(tiny.manifest)]) == 0
    shown = rows(capsys.readouterr().out)
    assert shown["train images"] == ["30", "-"]
    assert shown["classes"][0] == ("3" if labeled else "none named")


def test_labels_of_a_folder_come_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "images")
    lines = [
        f"{file.relative_to(tmp_path / 'images').as_posix()},one"
        for file in (tmp_path / "images").rglob("*.jpg")
    ]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["path,label", *lines]) + "\n")
    root = str(tmp_path / "images")
    assert main(["data", "folder", "--root", root, "--label-file", str(labels)]) == 0
    assert rows(capsys.readouterr().out)["classes"] == ["1", "-"]


def test_expectations_add_up() -> None:
    assert set(EXPECTED) == set(DATASETS) - {"folder", "manifest"}
    for expected in EXPECTED.values():
        for n_images, sizes in (
            (expected.n_train, expected.train_per_class),
            (expected.n_test, expected.test_per_class),
        ):
            low, high = sizes or (1, n_images)
            assert low * expected.n_classes <= n_images <= high * expected.n_classes
        assert (expected.n_labeled or 0) < expected.n_train / 2
    assert EXPECTED["imagenet50"].n_train == 64274


def test_missing_files_are_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "cub200", "--root", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("unic: error: cub200 needs 4 more files or folders")
    assert f"{tmp_path}/CUB_200_2011/images.txt" in shown.err


def test_a_first_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    tiny = WRITERS["cub200"](tmp_path)
    for file in (tmp_path / "CUB_200_2011" / "images").rglob("*.jpg"):
        file.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot decode .*bird \d+\.jpg"):
        check_dataset("cub200", root=tiny.root)


def test_labels_and_pixels_are_both_read(tmp_path: Path) -> None:
    write_stl10(tmp_path)
    (tmp_path / "stl10_binary" / "train_X.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"train_X\.bin must hold images"):
        check_dataset("stl10", root=str(tmp_path))
