import pytest

from unic.steering.names import MAX_LENGTH, check_name


@pytest.mark.parametrize(
    "name",
    [
        "dog",
        'the "big" one, <b>bold</b> & more',
        "=SUM(A1)",
        "черепаха 亀 🐢",
        "a" * MAX_LENGTH,
        "'; DROP TABLE images; --",
    ],
)
def test_keeps_what_can_be_read(name: str) -> None:
    assert check_name(name) == name


def test_ends_and_spellings_make_no_other_name() -> None:
    assert check_name(" \tFrosch\u00a0\n") == "Frosch"
    assert check_name("Fro\u0308sche") == check_name("Fr\u00f6sche")


# Refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must have a letter, a digit or a sign, got ''"),
        (" \t ", "must have a letter, a digit or a sign"),
        ("\u200b\u200d", "must have a letter, a digit or a sign"),
        ("\u0301", "must have a letter, a digit or a sign"),
        ("two\nlines", r"must be one line of characters, got '\\n'"),
        ("two\u2028lines", "must be one line of characters"),
        ("nul\0", r"must be one line of characters, got '\\x00'"),
        ("half \ud800", "must be one line of characters"),
        ("a" * (MAX_LENGTH + 1), "must have at most 100 characters, got 101"),
        (7, "must be a text, got 7"),
    ],
)
def test_refuses_what_is_no_name(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_name(name)
