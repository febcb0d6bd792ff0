"""The how-to on backbones names models that timm has, with the settings that they need."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml

from unic.experiments.settings import resolve_experiments

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/howto/backbones.md").read_text("utf-8")
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text("utf-8"))
ROWS = re.findall(r"^\|[^|]*\|[^|]*\| `([a-z]+\w*\d\S*)` \| (.*) \|$", TEXT, re.MULTILINE)
NAMES = {*(name for name, _ in ROWS), *re.findall(r"`((?:vit|deit)_base_\S+)`", TEXT)}
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    data = {"name": "folder", "root": "x"} | settings.get("data", {})
    experiment = settings | {"n_clusters": 5, "data": data}
    return resolve_experiments({"experiments": {"a": experiment}}, SCHEMA)["a"]


def test_the_table_is_there() -> None:
    assert len(ROWS) == 12
    assert len(NAMES) >= 9


@pytest.mark.parametrize("name", sorted(NAMES))
def test_timm_has_the_model(name: str) -> None:
    if "." in name:
        assert name in timm.list_pretrained(name.partition(".")[0] + "*")
    assert timm.is_model(name.partition(".")[0])


@pytest.mark.parametrize("name", sorted({name for name, weights in ROWS if "`hub`" in weights}))
def test_settings_fit_what_the_hub_says_of_the_weights(name: str) -> None:
    blocks = [block for block in BLOCKS if block["backbone"]["name"] == name]
    settings = resolve(blocks[0] if blocks else {"backbone": {"name": name}})
    about = timm.get_pretrained_cfg(name)
    assert about is not None
    assert settings["data"]["mean"] == list(about.mean)
    assert settings["data"]["std"] == list(about.std)
    options = settings["backbone"]["options"]
    is_rotary = "dinov3" in name
    assert about.input_size[1] == 224 or options.get("img_size") == 224 or is_rotary
    assert not is_rotary or options == {"global_pool": "token"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["backbone"]["name"])
def test_the_settings_are_settings(block: dict[str, Any]) -> None:
    resolved = resolve(block)
    assert resolved["backbone"].items() >= block["backbone"].items()
