"""Dotted keys: the values of settings by them, and what is said of a name that is not known."""

import difflib
from collections.abc import Iterable
from typing import Any

Settings = dict[str, Any]


def setting(settings: Settings, key: str) -> Any:
    """The value at a dotted key.

    >>> setting({"data": {"name": "digits"}}, "data.name")
    'digits'
    """
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Says that a name is not known, and which is meant or which there are.

    >>> unknown("key", "data.nmae", ["name", "root"])
    'unknown key data.nmae; did you mean name?'
    """
    known = list(known)
    last = name.rpartition(".")[2]
    close = difflib.get_close_matches(last, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"unknown {what} {name}; {hint}"
