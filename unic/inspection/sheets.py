"""The contact sheet of anchors: their neighbors in order, and their negatives, with captions."""

import webbrowser
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unic.images.datasets import open_images
from unic.inspection.neighbors import Anchor, Artifacts, find_source
from unic.inspection.text import describe_negatives, describe_reciprocity, describe_union, shorten
from unic.report.contact_sheets import fill_cell
from unic.storage.files import whole_file

_N_COLUMNS = 10
_CELL, _GAP, _MARGIN = 112, 12, 24  # pixels
_LINE = 16  # of a caption
_INK, _MUTED, _CLEAN, _DISCARDED = "#24292f", "#6a737d", "#0072B2", "#D55E00"  # Okabe-Ito
_WIDTH = 2 * _MARGIN + _N_COLUMNS * (_CELL + _GAP) - _GAP


class _Line(NamedTuple):
    text: str
    color: str = _MUTED
    is_bold: bool = False


class _Cell(NamedTuple):
    """An image with the lines below it."""

    row: int
    lines: list[_Line]
    bar: str | None  # color of a bar below the image


def read_pixels(anchors: Sequence[Anchor], artifacts: Artifacts) -> dict[int, NDArray[np.uint8]]:
    """Read the images that a sheet shows.

    Args:
        anchors: What the sheet shows; their neighbors and negatives are read too.
        artifacts: Of the experiment, whose index says where the images are.

    Returns:
        Row among the training images to pixels, uint8, shape ``(h, w, 3)``.

    Raises:
        FileNotFoundError: If an image is not where it was when it was indexed; names it.
        ValueError: If an image cannot be decoded, or the index does not say where they are.
    """
    source = find_source(artifacts.images)
    tables = [table for a in anchors for table in (a.neighbors, a.negatives)]
    rows = sorted({row for table in tables for row in table["row"].tolist()})
    images = open_images(
        source.name,
        [artifacts.image_ids[row] for row in rows],
        root=source.root,
    )
    try:
        return {row: images[i] for i, row in enumerate(rows)}
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"a contact sheet needs the images where they were indexed, {error.filename} is missing"
        ) from None


def draw_anchors(
    anchors: Sequence[Anchor],
    artifacts: Artifacts,
    pixels: dict[int, NDArray[np.uint8]],
) -> Image.Image:
    """Draw anchors one below the other: a heading, the neighbors by rank, the negatives.

    The middle square of each image is shown. A caption has rank and distance, the row, and of
    neighbors the union size; the bar above it is blue where the neighbor is clean, else orange.

    Args:
        anchors: At least one.
        artifacts: Of the experiment.
        pixels: Row to RGB pixels, uint8 ``(h, w, 3)``, of :func:`read_pixels`.
    """
    parts = [_draw_anchor(anchor, artifacts, pixels) for anchor in anchors]
    sheet = Image.new("RGB", (_WIDTH, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """Write a sheet as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        sheet.save(temporary, "PNG")


def open_sheet(path: Path) -> None:
    """Show a file with the program that this machine opens images with.

    Raises:
        OSError: If there is none.
    """
    try:
        was_opened = webbrowser.open(path.resolve().as_uri())
    except webbrowser.Error:
        was_opened = False
    if not was_opened:
        raise OSError(f"no program to show images was found on this machine; the sheet is {path}")


def _draw_anchor(
    anchor: Anchor, artifacts: Artifacts, pixels: dict[int, NDArray[np.uint8]]
) -> Image.Image:
    neighbors = [_neighbor_cell(row) for row in anchor.neighbors.to_dict("records")]
    negatives = [_negative_cell(row) for row in anchor.negatives.to_dict("records")]
    heading = _headings(anchor, artifacts)
    height = _MARGIN + 30 + _LINE + 14 + _grid_height(neighbors)
    height += 30 + _grid_height(negatives) if negatives else 0
    sheet = Image.new("RGB", (_WIDTH, height + _MARGIN // 2), "white")
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    _write(draw, (_MARGIN, top), _Line(heading[0], _INK, is_bold=True), size=18, width=_WIDTH)
    top += 30
    room = _draw_legend(draw, top, anchor.neighbors) - 2 * _MARGIN
    _write(draw, (_MARGIN, top), _Line(heading[1]), size=13, width=room)
    top += _LINE + 14
    _draw_grid(sheet, draw, neighbors, pixels, top)
    if negatives:
        top += _grid_height(neighbors)
        title = describe_negatives(anchor).capitalize()
        _write(draw, (_MARGIN, top), _Line(title, _INK, is_bold=True), size=13, width=_WIDTH)
        _draw_grid(sheet, draw, negatives, pixels, top + 30 - 6)
    return sheet


def _headings(anchor: Anchor, artifacts: Artifacts) -> tuple[str, str]:
    facts = [describe_union(anchor, artifacts), describe_reciprocity(anchor)]
    facts.append(f"far radius {_distance(anchor.far_radius)} at rank {artifacts.far_rank}")
    if anchor.known_label is not None:
        facts.append(f"known label {anchor.known_label}")
    return f"Image {anchor.row}: {anchor.image_id}", " · ".join(facts)


def _neighbor_cell(row: dict[str, Any]) -> _Cell:
    is_itself = row["rank"] == 0
    mutual = " ↔" if row["is_mutual"] and not is_itself else ""
    first = "itself" if is_itself else f"{row['rank']} · {_distance(row['distance'])}{mutual}"
    lines = [_Line(first, _INK, is_bold=True), _row_line(row)]
    if "union_size" not in row:
        return _Cell(row["row"], lines, None)
    color = _CLEAN if row["is_clean"] else _DISCARDED
    lines.append(_Line(f"union {row['union_size']}", color))
    return _Cell(row["row"], lines, color)


def _negative_cell(row: dict[str, Any]) -> _Cell:
    lines = [_row_line(row)]
    if "distance" in row:
        lines.insert(0, _Line(f"{_distance(row['distance'])}", _INK, is_bold=True))
    return _Cell(row["row"], lines, None)


def _row_line(row: dict[str, Any]) -> _Line:
    label = row.get("known_label", pd.NA)
    return _Line(f"row {row['row']}" + ("" if pd.isna(label) else f" · {label}"))


def _distance(value: float) -> str:
    return f"{value:#.4g}".rstrip(".")


def _cell_height(cells: Sequence[_Cell]) -> int:
    return _CELL + 8 + max(len(cell.lines) for cell in cells) * _LINE + 14


def _grid_height(cells: Sequence[_Cell]) -> int:
    return -(-len(cells) // _N_COLUMNS) * _cell_height(cells)


def _draw_grid(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    cells: Sequence[_Cell],
    pixels: dict[int, NDArray[np.uint8]],
    top: int,
) -> None:
    for i, cell in enumerate(cells):
        row, column = divmod(i, _N_COLUMNS)
        x, y = _MARGIN + column * (_CELL + _GAP), top + row * _cell_height(cells)
        sheet.paste(fill_cell(pixels[cell.row], _CELL), (x, y))
        if cell.bar is not None:
            draw.rectangle((x, y + _CELL + 1, x + _CELL - 1, y + _CELL + 4), fill=cell.bar)
        for number, line in enumerate(cell.lines):
            place = (x, y + _CELL + 8 + number * _LINE)
            _write(draw, place, line, size=12, width=_CELL + _GAP - 4)


def _draw_legend(draw: ImageDraw.ImageDraw, top: int, neighbors: pd.DataFrame) -> int:
    """Explain the captions at the right end of a line; returns where the legend begins."""
    entries: list[tuple[str, str | None]] = [("↔ mutual", None)]
    if "known_label" in neighbors:
        entries.append(("row · known label", None))
    if "is_clean" in neighbors:
        entries += [("discarded", _DISCARDED), ("clean", _CLEAN)]
    x = _WIDTH - _MARGIN
    for text, color in entries:
        x -= int(_font(12).getlength(text))
        draw.text((x, top), text, fill=_MUTED, font=_font(12))
        if color is not None:
            x -= 16
            draw.rectangle((x, top + 3, x + 10, top + 12), fill=color)
        x -= 16
    return x


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], line: _Line, *, size: int, width: int
) -> None:
    """Write a line, cut in its middle to fit the width."""
    font = _font(size, is_bold=line.is_bold)
    room = min(width, _WIDTH - _MARGIN - place[0])
    text = line.text
    while font.getlength(text) > room:
        text = shorten(line.text, len(text) - 1)
    draw.text(place, text, fill=line.color, font=font)


@cache
def _font(size: int, *, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: the same glyphs on every machine."""
    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)
