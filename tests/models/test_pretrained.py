import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from unic.models.backbones import load_backbone
from unic.models.pretrained import VARIABLE, find_pretrained

CONFIG = {
    "architecture": "test_resnet",
    "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]},
    "model_args": {"in_chans": 3},
}


def write_weights(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    return path


def test_a_folder_of_the_hub_says_all(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    found = find_pretrained(str(tmp_path))
    assert (found.name, found.weights, found.options) == (
        "test_resnet",
        str(weights),
        {"in_chans": 3},
    )
    assert (found.image_size, found.mean, found.crop_pct) == (64, (0.1, 0.2, 0.3), 0.875)


def test_a_file_is_named_after_its_network_and_can_be_loaded(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "test_resnet.mine.safetensors")
    found = find_pretrained(str(weights))
    known = timm.get_pretrained_cfg("test_resnet")
    assert found.name == "test_resnet"
    assert found.mean == tuple(known.mean)
    assert "no test_resnet.mine.json beside it" in found.why
    backbone = load_backbone(
        found.name, weights=found.weights, options=found.options, image_size=found.image_size
    )
    assert backbone(torch.zeros(1, 3, found.image_size, found.image_size)).shape == (
        1,
        backbone.n_dims,
    )


def test_a_config_beside_a_file_is_read(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "anything.safetensors")
    (tmp_path / "anything.json").write_text(json.dumps(CONFIG))
    assert find_pretrained(str(weights)).image_size == 64


def test_bundled_weights_are_known() -> None:
    assert find_pretrained("bundled:digits_test_resnet").image_size == 32


def test_large_vision_transformers_see_224_pixels(tmp_path: Path) -> None:
    config = {
        "architecture": "vit_small_patch14_dinov2.lvd142m",
        "pretrained_cfg": {"input_size": [3, 518, 518], "mean": [0] * 3, "std": [1] * 3},
    }
    write_weights(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = find_pretrained(str(tmp_path))
    assert found.image_size == 224
    assert found.options == {"img_size": 224}


def test_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "bundled:digits_test_resnet")
    found = find_pretrained(None)
    assert found.name == "test_resnet"
    assert VARIABLE in found.why


# Refusals


def test_without_a_network_it_says_how_to_get_a_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"cannot be reached.*--backbone.*hf download"):
        find_pretrained(None)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("bundled:nothing", "there is no bundled:nothing"),
        ("no_such_network", "must be a model of timm, a folder, or a file"),
    ],
)
def test_refuses_what_it_does_not_know(asked: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        find_pretrained(asked)


def test_refuses_files_it_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a file of weights, there is none at nowhere.pth"):
        find_pretrained("nowhere.pth")
    with pytest.raises(
        FileNotFoundError, match=r"must hold config.json and weights .* has nothing"
    ):
        find_pretrained(str(tmp_path))
    strange = write_weights(tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"named after a network of timm.*as mine.json; mine is"):
        find_pretrained(str(strange))
    (tmp_path / "mine.json").write_text('{"architecture": "test_resnet"}')
    with pytest.raises(ValueError, match=r"must have input_size, mean and std"):
        find_pretrained(str(strange))
