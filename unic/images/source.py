"""Image sources: where the pixels of a data set are, and how they are prepared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from unic.images.datasets import open_images
from unic.images.decoded import open_decoded
from unic.images.images import Images
from unic.images.views import View


@dataclass(frozen=True)
class ImageSource:
    """Where pixels come from.

    Args:
        name: Data set, see :func:`unic.images.datasets.open_images`.
        root: Folder of the files; None where the data set needs none.
        view: Evaluation view.
        decoded: Header of :func:`unic.images.decoded.decode_images`, None to decode the images
            each time.
    """

    name: str
    root: str | None
    view: View
    decoded: str | None = None

    @classmethod
    def parse(cls, settings: Mapping[str, Any], *, decoded: str | None) -> Self:
        """The source of ``name``, ``root`` and ``view``, from decoded images where there are."""
        return cls(**dict(settings) | {"view": View(**settings["view"]), "decoded": decoded})

    def open(self, ids: Sequence[str]) -> Images:
        """Open the images of a split, decoded ones where there are such.

        Args:
            ids: All ids of the split, in order.

        Raises:
            FileNotFoundError: If there is no file of decoded images.
            ValueError: If it is of other images, or its header is damaged.
        """
        if self.decoded is not None:
            return open_decoded(self.decoded, ids)
        return open_images(self.name, ids, root=self.root)

    def open_splits(self, ids: Mapping[str, Sequence[str]]) -> dict[str, Images]:
        """Open the images of each split; see :meth:`open`."""
        return {split: self.open(split_ids) for split, split_ids in ids.items()}
