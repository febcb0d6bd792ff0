import jinja2
import pytest

from unic.report.templates import load_template

GIVEN = {
    **{"experiment": "<x> & y", "seed": 0, "cell": 96},
    **{name: [] for name in ("overall", "columns", "clusters", "sections")},
}


def test_what_is_given_is_escaped() -> None:
    page = load_template("quality_page.html.jinja").render(**GIVEN)
    assert "&lt;x&gt; &amp; y" in page
    assert "<x>" not in page


def test_what_is_not_given_is_an_error() -> None:
    some = {name: value for name, value in GIVEN.items() if name != "seed"}
    with pytest.raises(jinja2.UndefinedError, match="seed"):
        load_template("quality_page.html.jinja").render(**some)


def test_shares_are_written_in_percent() -> None:
    environment = load_template("page.html.jinja").environment
    assert environment.filters["percent"](0.5) == "50.0%"


def test_refuses_a_name_of_none() -> None:
    with pytest.raises(jinja2.TemplateNotFound):
        load_template("other.jinja")
