"""Images that somebody gives: a folder, files, pictures or arrays, of any sizes."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unic.images.decoding import decode_image, take_pixels
from unic.images.readers.folders import IMAGE_SUFFIXES, list_files
from unic.images.views import crop_square

Given = str | PathLike[str] | Image.Image | NDArray[np.uint8]
_BLANK = np.zeros((1, 1, 3), dtype=np.uint8)


class GivenImages:
    """Images in the order in which they were given, see :class:`unic.images.images.Images`.

    Args:
        images: Paths of files, pictures, or uint8 arrays ``(h, w, 3)`` of RGB.
        ids: Of each: its path, or its number.
        decoded: Side of the central square that is taken of each; None leaves it whole.
        is_lenient: Whether an image that cannot be read is blank and noted in ``faults``, rather
            than an error.
    """

    def __init__(
        self,
        images: Sequence[Given],
        ids: Sequence[str],
        *,
        decoded: int | None = None,
        is_lenient: bool = False,
    ):
        self.ids: Sequence[str] = ids
        self.faults: dict[int, str] = {}
        self._images, self._decoded, self._is_lenient = images, decoded, is_lenient

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Pixels of an image: uint8, shape ``(h, w, 3)``, RGB.

        Raises:
            ValueError: If it cannot be read; names it.
        """
        try:
            pixels = _read(self._images[row])
        except Exception as error:  # Pillow raises all sorts on broken files
            if self._is_lenient:
                self.faults[row] = " ".join(f"{type(error).__name__}: {error}".split())
                return _BLANK
            raise ValueError(
                f"images must be readable, cannot read {self.ids[row]}: {error}"
            ) from None
        return pixels if self._decoded is None else crop_square(pixels, self._decoded)

    def fingerprint(self) -> str:
        """Nothing is kept of what was given."""
        raise NotImplementedError


def open_given(
    images: Given | Iterable[Given], *, decoded: int | None = None, is_lenient: bool = False
) -> GivenImages:
    """Open what was given, folders as the images below them.

    Args:
        images: A folder, a file, a picture, an array ``(h, w, 3)`` or ``(n, h, w, 3)``, or several
            of these, mixed as may be.
        decoded: See :class:`GivenImages`.
        is_lenient: See :class:`GivenImages`.

    Raises:
        FileNotFoundError: If a path is missing.
        ValueError: If there is no image, or something is none.
    """
    several = [images] if _is_one(images) else list(images)  # type: ignore[arg-type]
    found: list[Given] = []
    ids: list[str] = []
    for one in several:
        members = _expand(one)
        ids += [
            str(member) if isinstance(member, str | PathLike) else str(len(found) + number)
            for number, member in enumerate(members)
        ]
        found += members
    if not found:
        raise ValueError("there must be at least 1 image, got none")
    return GivenImages(found, ids, decoded=decoded, is_lenient=is_lenient)


def _is_one(images: Any) -> bool:
    return isinstance(images, str | PathLike | Image.Image | np.ndarray)


def _expand(one: Any) -> Sequence[Given]:
    """The images that one thing stands for."""
    if isinstance(one, str | PathLike):
        return _list_path(Path(one))
    if isinstance(one, Image.Image):
        return [one]
    if isinstance(one, np.ndarray):
        is_image = one.ndim in (3, 4) and one.shape[-1] == 3 and 0 not in one.shape[-3:]
        if one.dtype != np.uint8 or not is_image:
            raise ValueError(
                "arrays of images must be uint8 of shape (h, w, 3) or (n, h, w, 3), "
                f"got {one.dtype} of shape {one.shape}"
            )
        return [one] if one.ndim == 3 else list(one)
    raise ValueError(
        f"images must be paths, pictures of Pillow or uint8 arrays, got {type(one).__name__}"
    )


def _list_path(path: Path) -> Sequence[Given]:
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"images must be files or folders, there is none at {path}")
        return [path]
    files = [path / image_id for image_id in list_files(path, path)]
    if not files:
        raise ValueError(
            f"a folder must have images ({', '.join(sorted(IMAGE_SUFFIXES))}), found none below "
            f"{path}"
        )
    return files


def _read(image: Given) -> NDArray[np.uint8]:
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Image.Image):
        return take_pixels(ImageOps.exif_transpose(image))  # a copy: the picture is not ours
    return decode_image(Path(image))
