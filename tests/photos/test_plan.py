from dataclasses import replace
from pathlib import Path

import pytest

from tests.photos.folders import write_digits
from unic.models.pretrained import find_pretrained
from unic.photos.plan import (
    Speed,
    estimate_seconds,
    format_seconds,
    make_plan,
    measure_speed,
)
from unic.photos.request import Request, check_request

SPEED = Speed(0.001, 0.05, 1280, 1.0, "cpu", 0, 32)


@pytest.fixture
def request_of(tmp_path: Path) -> Request:
    write_digits(tmp_path / "photos", 12)
    return Request(
        tmp_path / "photos", tmp_path / "results" / "mine", 3, (), None, "quick", (0,), "cpu", 1
    )


def test_speed_is_measured_on_the_images_themselves(request_of: Request) -> None:
    (request_of.photos / "broken.png").write_bytes(b"no image")
    speed = measure_speed(
        request_of, check_request(request_of), find_pretrained("bundled:digits_test_resnet")
    )
    assert speed.n_sampled == 13
    assert speed.n_unreadable == 1
    assert speed.n_dims == 96
    assert 0 < speed.decode < 1
    assert 0 < speed.embed < 5
    assert speed.processor > 0


def test_the_plan_says_what_is_done_and_why(request_of: Request) -> None:
    backbone = find_pretrained("bundled:digits_test_resnet")
    plan = make_plan(request_of, check_request(request_of), backbone, SPEED)
    told = dict(plan.lines)
    assert told["images"].startswith("12 in ")
    assert told["labels"] == "none"
    assert told["clusters"] == "3"
    assert "it comes with the package" in told["backbone"]
    assert told["neighbors"].startswith("5 of each image by cosine")
    assert told["time"].startswith(format_seconds(plan.total))


def test_times_follow_images_seeds_and_effort(request_of: Request) -> None:
    few = estimate_seconds(request_of, 1000, 1000, SPEED)
    assert few["features"] == pytest.approx(50)
    assert estimate_seconds(request_of, 4000, 4000, SPEED)["features"] == pytest.approx(200)
    two = estimate_seconds(replace(request_of, seeds=(0, 1)), 1000, 1000, SPEED)
    assert two["clusters"] == 2 * few["clusters"]
    assert "number of clusters" in estimate_seconds(
        replace(request_of, n_clusters="auto"), 1000, 1000, SPEED
    )
    quick, standard, thorough = (
        sum(estimate_seconds(replace(request_of, effort=e), 1000, 1000, SPEED).values())
        for e in ("quick", "standard", "thorough")
    )
    assert quick < standard < thorough


def test_a_training_is_followed_by_another_look_at_the_images(request_of: Request) -> None:
    asked = replace(request_of, effort="standard", seeds=(0, 1, 2))
    found = estimate_seconds(asked, 1000, 1200, SPEED)
    assert found["predicting"] == pytest.approx(3 * 1200 * SPEED.embed)
    assert found["views"] == pytest.approx(4 * 1000 * 0.7 * SPEED.embed)
    one = estimate_seconds(replace(asked, seeds=(0,)), 1000, 1200, SPEED)
    for stage in ("training", "k-means"):
        assert found[stage] == pytest.approx(3 * one[stage])


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_a_machine_twice_as_slow_takes_twice_as_long(request_of: Request, effort: str) -> None:
    asked = replace(request_of, effort=effort, n_clusters="auto")
    slow = SPEED._replace(decode=2 * SPEED.decode, embed=2 * SPEED.embed, processor=2.0)
    found = estimate_seconds(asked, 30_000, 30_000, slow)
    for stage, seconds in estimate_seconds(asked, 30_000, 30_000, SPEED).items():
        assert found[stage] == pytest.approx(2 * seconds)


def test_features_that_are_there_take_no_time(request_of: Request) -> None:
    backbone = find_pretrained("bundled:digits_test_resnet")
    speed = measure_speed(request_of, check_request(request_of), backbone, has_features=True)
    assert estimate_seconds(request_of, 1000, 1000, speed)["features"] == 0
