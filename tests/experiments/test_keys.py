"""Dotted keys of settings."""

from collections.abc import Iterator

import pytest

from unic.experiments.keys import Settings, setting, unknown


def leaves(
    settings: Settings, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def test_every_value_is_found_at_its_key() -> None:
    settings = {"seeds": [0, 1], "finetuning": {"epochs": 3, "views": {"augmentation": None}}}
    found = {path: setting(settings, ".".join(path)) for path, _ in leaves(settings)}
    assert found == dict(leaves(settings))
    assert setting(settings, "finetuning.views") is settings["finetuning"]["views"]


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="epoch"):
        setting({"finetuning": {"epochs": 3}}, "finetuning.epoch")


def test_nearly_right_names_are_told_which_is_meant() -> None:
    message = unknown("setting", "finetuning.epoch", ["batch_size", "epochs"])
    assert message == "unknown setting finetuning.epoch; did you mean epochs?"


def test_other_names_are_told_which_there_are() -> None:
    known = (name for name in ("toy", "digits"))  # read once
    assert unknown("experiment", "x", known) == "unknown experiment x; known are toy, digits"
