import pytest

from unic.models.licenses import find_license


@pytest.mark.parametrize(
    ("name", "weights", "found"),
    [
        ("resnet50.a1_in1k", "hub", "apache-2.0"),
        ("resnet50", "data/resnet50.a1_in1k.safetensors", "apache-2.0"),
        ("resnet50", "data/mine.pth", None),
        ("test_resnet", "bundled:digits_test_resnet", "mit"),
        ("test_resnet", "bundled:absent", None),
        ("resnet50", "random", None),
    ],
)
def test_licenses_are_those_of_weights(name: str, weights: str, found: str | None) -> None:
    assert find_license(name, weights) == found
