"""What several tests look at; they must leave it as it is."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.inference.bundles import CPU, N_NEW, make_bundle, make_trained_bundle, read_pixels
from unic.inference.bundle import Bundle, write_bundle
from unic.inference.predictor import Predictor


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return make_bundle()


@pytest.fixture(scope="session")
def labeled_bundle() -> Bundle:
    return make_bundle(names=("zero", "one", "two"))


@pytest.fixture(scope="session")
def trained_bundle() -> Bundle:
    return make_trained_bundle()


@pytest.fixture(scope="session")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, device=CPU)


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """New images, ``(n, 8, 8, 3)``."""
    return read_pixels("test", N_NEW)


@pytest.fixture
def results(tmp_path: Path, bundle: Bundle) -> Path:
    """The folder of an experiment."""
    write_bundle(tmp_path / "results/small/model.safetensors", bundle)
    return tmp_path / "results/small"


@pytest.fixture
def photos(tmp_path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Some of the new images in a folder, as files."""
    folder = tmp_path / "new"
    (folder / "more").mkdir(parents=True)
    for row, image in enumerate(pixels[:6]):
        name = f"more/{row}.png" if row > 3 else f"{row}.png"
        Image.fromarray(image).save(folder / name)
    return folder
