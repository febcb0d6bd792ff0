"""Scores as text, against decimal arithmetic."""

import math
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unic.evaluation.formatting import (
    MISSING,
    format_count,
    format_estimate,
    format_percent,
    format_spread,
    format_value,
    is_missing,
)


def rounded(value: float, digits: str) -> str:
    return str(Decimal(value).quantize(Decimal(digits), ROUND_HALF_EVEN))


@given(st.floats(0, 1))
def test_shares_are_percent_with_one_digit(fraction: float) -> None:
    assert format_percent(fraction) == f"{rounded(100 * fraction, '0.1')}%"


@given(st.integers(0, 10**9))
def test_whole_counts_have_no_point(count: int) -> None:
    text = format_count(float(count))
    assert int(text.replace(",", "")) == count
    assert all(len(group) == 3 for group in text.split(",")[1:])


@given(st.floats(0, 1e6))
def test_other_counts_have_one_digit(mean: float) -> None:
    found = Decimal(format_count(mean).replace(",", ""))
    assert found == Decimal(rounded(mean, "0.1"))


@pytest.mark.parametrize("value", [None, math.nan])
@pytest.mark.parametrize("name", ["acc", "used_clusters"])
def test_a_missing_score_is_a_dash(name: str, value: float | None) -> None:
    assert is_missing(value)
    assert format_value(name, value) == MISSING


@pytest.mark.parametrize("value", [0.0, 1.0, math.inf])
def test_zero_is_not_missing(value: float) -> None:
    assert not is_missing(value)
    assert format_value("acc", value) == format_percent(value)
    assert format_value("used_clusters", value) == format_count(value)


@given(st.floats(0, 100), st.floats(0, 100), st.integers(2, 9))
def test_several_seeds_have_a_deviation(mean: float, std: float, n_seeds: int) -> None:
    expected = [rounded(value, "0.01") for value in (mean, std)]
    assert format_spread(mean, std, n_seeds=n_seeds).split(" ± ") == expected
    assert format_spread(mean, std, n_seeds=1) == expected[0]


def test_an_estimate_is_told_with_what_else_it_may_be() -> None:
    estimate = {"n_clusters": 2, "best": 1, "low": 1, "high": 4, "candidates": [1, 2]}
    told = "The images may well be of one kind; 2 clusters by estimate, between 1 and 4; next best"
    assert format_estimate(estimate) == f"{told} 1"
    alone = estimate | {"best": 2, "candidates": [2]}
    assert format_estimate(alone) == "2 clusters by estimate, between 1 and 4"
