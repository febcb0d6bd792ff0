import re
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.experiment import ROOT, write_experiment
from unic.inspection import sheets
from unic.inspection.neighbors import Anchor, Artifacts, inspect_images, open_artifacts
from unic.inspection.sheets import draw_anchors, open_sheet, read_pixels, write_sheet

CLEAN, DISCARDED = (0, 114, 178), (213, 94, 0)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    folder = tmp_path_factory.mktemp("project") / "results" / "toy"
    return open_artifacts(write_experiment(folder, images=True))


def draw(artifacts: Artifacts, *rows: int) -> tuple[list[Anchor], Image.Image]:
    anchors = inspect_images(artifacts, rows, n_negatives=3)
    return anchors, draw_anchors(anchors, artifacts, read_pixels(anchors, artifacts))


def find_color(sheet: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(sheet) == np.array(color, dtype=np.uint8)).all(axis=2)


def test_neighbors_are_in_order_and_negatives_below(artifacts: Artifacts) -> None:
    anchors, sheet = draw(artifacts, 12)
    assert sheet.mode == "RGB"
    places = []
    for table in (anchors[0].neighbors, anchors[0].negatives):
        for row in table["row"]:
            ys, xs = np.nonzero(find_color(sheet, (5 * row, 255 - 5 * row, 128)))
            assert len(ys) == sheets._CELL**2
            places.append((ys.min(), xs.min()))
    assert places == sorted(places)
    assert len({y for y, _ in places}) == 2


def test_bars_say_which_neighbors_are_clean(artifacts: Artifacts) -> None:
    everyone = inspect_images(artifacts, range(40))
    mixed = next(a.row for a in everyone if a.neighbors["is_clean"].nunique() == 2)
    anchors, sheet = draw(artifacts, mixed)
    area = sheets._CELL * 4
    is_clean = anchors[0].neighbors["is_clean"]
    for color, n_bars in ((CLEAN, is_clean.sum()), (DISCARDED, (~is_clean).sum())):
        rows = find_color(sheet, color).sum(axis=1)  # whole bars are long, text is not
        assert rows[rows >= sheets._CELL].sum() == n_bars * area


def test_more_neighbors_than_columns_and_more_anchors(artifacts: Artifacts) -> None:
    one, two = draw(artifacts, 12)[1], draw(artifacts, 12, 3)[1]
    assert two.size == (one.width, 2 * one.height)
    anchors = inspect_images(artifacts, [12])
    many = anchors[0].neighbors.loc[list(range(6)) * 9].reset_index(drop=True)[:50]
    pixels = read_pixels(anchors, artifacts)
    tall = draw_anchors([anchors[0]._replace(neighbors=many)], artifacts, pixels)
    assert tall.width == one.width
    assert tall.height - one.height == 4 * (sheets._CELL + 8 + 3 * sheets._LINE + 14)


def test_nothing_but_mining_is_enough(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "results" / "toy", stages=["neighbors"], images=True)
    sheet = draw(open_artifacts(folder), 0)[1]
    assert not find_color(sheet, CLEAN).any()


def test_long_captions_stay_on_the_sheet(artifacts: Artifacts) -> None:
    anchors = inspect_images(artifacts, [12])
    anchor = anchors[0]._replace(image_id="train/" + 300 * "long_", union_size=10**40)
    anchor.neighbors["distance"] = 1234567.0
    sheet = draw_anchors([anchor], artifacts, read_pixels(anchors, artifacts))
    assert (np.asarray(sheet)[:, -sheets._MARGIN :] == 255).all()


def test_moved_images_are_named(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "results" / "toy", images=True)
    (tmp_path / ROOT).rename(tmp_path / "elsewhere")
    path = re.escape(str(tmp_path / ROOT / "train/a"))
    with pytest.raises(FileNotFoundError, match=f"where they were indexed, {path}.* is missing"):
        draw(open_artifacts(folder), 0)


def test_a_sheet_is_a_png_and_whole(artifacts: Artifacts, tmp_path: Path) -> None:
    sheet = draw(artifacts, 12)[1]
    write_sheet(tmp_path / "new" / "sheet.png", sheet)
    np.testing.assert_array_equal(Image.open(tmp_path / "new" / "sheet.png"), sheet)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_opens_with_the_program_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: opened.append(uri) or True)
    open_sheet(tmp_path / "a sheet.png")
    assert opened == [f"{tmp_path.as_uri()}/a%20sheet.png"]
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    with pytest.raises(OSError, match=r"no program to show images .*; the sheet is .*a sheet\.png"):
        open_sheet(tmp_path / "a sheet.png")
