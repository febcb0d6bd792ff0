"""Damaged files of every kind: a value or an error of ours; benchmarks/fuzz.py runs for longer."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzzing import (
    CONFIG,
    READERS,
    cases,
    check_config,
    check_reader,
    damaged_tree,
    write_sample,
)

PROFILE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Left to the benchmark: what may ask for all memory there is, and what starts processes.
SHORT = [name for name in READERS if name not in ("model description", "cars lists")]


@pytest.mark.filterwarnings("ignore")  # decoders warn of what they can read nevertheless
@pytest.mark.parametrize("name", SHORT)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    sample = write_sample(reader, tmp_path)

    @settings(PROFILE, max_examples=25)
    @given(cases(reader, sample))
    def check(case: tuple[str, bytes]) -> None:
        check_reader(reader, sample, case)

    assert sample.value is not None
    check()


def test_the_configuration_to_be_damaged_is_valid() -> None:
    check_config(CONFIG)


@settings(PROFILE, max_examples=100)
@given(damaged_tree(CONFIG))
def test_damaged_configurations_are_resolved_or_refused(config: object) -> None:
    check_config(config)
