"""Templates of pages, which come with the package."""

import jinja2

from unic.evaluation.formatting import format_percent


def load_template(name: str) -> jinja2.Template:
    """Load a template by its file name; it may use the filter ``percent``.

    What is put into it is escaped, and a name that it is not given is an error.

    Raises:
        jinja2.TemplateNotFound: If there is none.

    Example:
        >>> "<h2>By cluster</h2>" in load_template("quality_page.html.jinja").render(
        ...     experiment="<x>", seed=0, overall=[], columns=[], clusters=[], sections=[], cell=96
        ... )
        True
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unic.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = format_percent
    return environment.get_template(name)
