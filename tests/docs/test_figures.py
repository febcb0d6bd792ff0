"""The how-to about figures names what there is, and its example is a figure."""

import re
from pathlib import Path

import yaml

from tests.experiments.configurations import SCHEMA, read_config
from unic.experiments.settings import resolve_experiments
from unic.experiments.stages import paper_figures
from unic.report.experiment_curves import CurveFigure

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/howto/figures.md").read_text("utf-8")


def test_every_figure_is_named() -> None:
    config = read_config()
    for name, figure in config["figures"].items():
        assert f"`{name}`" in TEXT or name.startswith("digits_")
        CurveFigure(**figure)
    resolved = resolve_experiments(config, SCHEMA)
    numbers = {*paper_figures(resolved["digits"]), *paper_figures(resolved["digits_gcd"]), "16"}
    rows = re.findall(r"^\| (\d+(?:, \d+)*) \|", TEXT, re.MULTILINE)
    assert {number for row in rows for number in row.split(", ")} == numbers


def test_figures_over_epochs_have_snapshots() -> None:
    config = read_config()
    resolved = resolve_experiments(config, SCHEMA)
    for figure in config["figures"].values():
        for lines in figure["panels"].values() if figure["x"] == "epoch" else ():
            for name in lines.values():
                assert resolved[name]["finetuning"]["snapshot_every"] is not None


def test_the_example_is_a_figure() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    config = read_config()
    example = yaml.safe_load(block)["figures"]
    resolve_experiments(config | {"figures": config["figures"] | example}, SCHEMA)
    CurveFigure(**example["batches"])


def test_targets_are_there() -> None:
    known = read_config()["figures"]
    named = re.findall(r"results/figures/(\w+)\.png", TEXT)
    assert named
    assert set(named) <= set(known)
