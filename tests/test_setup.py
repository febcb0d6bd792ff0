"""The ways to set the project up agree with one another."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {
    "pytorch-gpu": "torch",
    "matplotlib-base": "matplotlib",
    "faiss-gpu": "faiss-gpu-cu12",
}
UNTESTED = {  # modules without a test of their own
    "models/trunk_output",  # a tuple, of which tests of backbones, token layouts and sources are
}
ELSEWHERE = (
    "workflow",
    "docs",
    "slurm",
    "browser",
    "benchmarks",
)  # folders of tests that are of no single module


def specifiers(requirements: list[str]) -> dict[str, str]:
    parsed = map(Requirement, requirements)
    return {requirement.name: str(requirement.specifier) for requirement in parsed}


def test_conda_environment_has_the_packages_of_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    found = {}
    for line in environment["dependencies"]:
        name, _, specifier = line.partition(" ")
        found[CONDA_NAMES.get(name, name)] = specifier
    python = ",".join(sorted(found.pop("python").split(",")))
    assert python == ",".join(sorted(PROJECT["requires-python"].split(",")))
    pytest_only = {k: v for k, v in specifiers(EXTRAS["dev"]).items() if k == "pytest"}
    extras = specifiers(EXTRAS["gpu"] + EXTRAS["rivals"]) | pytest_only
    expected = specifiers(PROJECT["dependencies"]) | extras
    assert found == expected


def test_every_rule_points_to_the_conda_environment() -> None:
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        text = path.read_text()
        rules = re.findall(r"^rule \w+:", text, re.MULTILINE)
        assert text.count('"../../environment.yml"') == len(rules)


def test_requirements_pin_every_package_and_name_no_address() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text
    assert "--" not in text
    pins = {}
    for line in text.splitlines():
        requirement = Requirement(line)
        assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), line
        pins.setdefault(requirement.name, []).append(str(requirement.specifier)[2:])
    wanted = PROJECT["dependencies"] + EXTRAS["cpu"] + EXTRAS["dev"]
    for requirement in map(Requirement, wanted):
        assert all(requirement.specifier.contains(v) for v in pins[requirement.name]), requirement


def test_make_gpu_installs_what_the_extra_says() -> None:
    assert all(
        f'"{requirement}"' in (ROOT / "Makefile").read_text() for requirement in EXTRAS["gpu"]
    )


def test_every_example_of_the_default_profile_is_read() -> None:
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert profile["resources"] == {"gpu": 1}
    assert "code" not in profile["rerun-triggers"]


def test_the_slurm_profile_names_rules_that_exist() -> None:
    rules = (ROOT / "workflow" / "rules").glob("*.smk")
    text = "".join(path.read_text() for path in rules)
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    default = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    named = {*profile["set-resources"], *profile["set-threads"]}
    assert named <= set(re.findall(r"^(?:rule|use rule \w+ as) (\w+)(?: with)?:", text, re.M))
    assert profile["rerun-triggers"] == default["rerun-triggers"]
    finetune = profile["set-resources"]["finetune"]
    assert (finetune["gpu"], finetune["processes"]) == (4, 4)


# Where tests are


def test_every_module_has_its_test_where_its_path_says() -> None:
    modules = paths_below(ROOT / "unic", "*.py") - paths_below(ROOT / "unic", "__init__.py")
    tests = paths_below(ROOT / "tests", "test_*.py")
    homes = {path.with_name(path.name.removeprefix("test_")) for path in tests}
    assert {path.as_posix() for path in modules - homes} == UNTESTED
    strays = {path for path in homes - modules if len(path.parts) > 1}
    assert {path.as_posix() for path in strays if path.parts[0] not in ELSEWHERE} == set()


def paths_below(folder: Path, pattern: str) -> set[Path]:
    return {path.relative_to(folder).with_suffix("") for path in folder.rglob(pattern)}
