import pytest

from unic.explorer.guard import HEADERS, is_local, strip_token

OWN = {"Host": "127.0.0.1:8000"}


def test_the_token_comes_first_and_is_compared_whole() -> None:
    assert strip_token("/secret/", "secret") == ""
    assert strip_token("/secret/api/runs?q=1", "secret") == "api/runs?q=1"
    for path in (
        "/",
        "",
        "/secre/",
        "/secrets/",
        "/SECRET/",
        "/api/runs",
        "/x/secret/",
        "/sécret/",
    ):
        assert strip_token(path, "secret") is None


@pytest.mark.parametrize(
    "headers",
    [
        OWN,
        {"Host": "localhost:8000"},
        OWN | {"Origin": "http://127.0.0.1:8000"},
        OWN | {"Sec-Fetch-Site": "same-origin"},
        OWN | {"Sec-Fetch-Site": "none"},  # typed, or opened from a terminal
    ],
)
def test_requests_of_the_page_are_let_in(headers: dict[str, str]) -> None:
    assert is_local(headers, 8000)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "evil.example:8000"},  # a name that was made to lead here
        {"Host": "127.0.0.1:8001"},
        {"Host": "127.0.0.1"},
        OWN | {"Origin": "https://evil.example"},
        OWN | {"Origin": "null"},
        OWN | {"Origin": "http://127.0.0.1:8001"},
        OWN | {"Sec-Fetch-Site": "cross-site"},
        OWN | {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_others_are_not(headers: dict[str, str]) -> None:
    assert not is_local(headers, 8000)


def test_the_page_may_load_and_run_nothing_from_elsewhere() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
