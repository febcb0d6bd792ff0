"""Answers: what the page asks of the runs, as bytes; nothing here knows of sockets."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np

from unic.explorer.images import describe_image, search_images, tabulate_images
from unic.explorer.showcase import Showcase, Shown
from unic.explorer.steering import Steering

_SCRIPTS = (
    *("address", "colors", "filters", "gallery", "keys", "legend", "main", "panels", "pointing"),
    *("requests", "scatter", "search", "steering"),
)
PAGE = {  # files of the page, and what they are
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    **{f"{name}.js": "text/javascript; charset=utf-8" for name in _SCRIPTS},
}
JSON, RAW = "application/json", "application/octet-stream"
CSV, TEXT = "text/csv; charset=utf-8", "text/plain; charset=utf-8"
_NOTHING = "there is nothing at this address"
MAX_BODY = 16_000_000  # bytes: a selection of two million images


class Answer(NamedTuple):
    """What a request gets."""

    status: int
    kind: str  # MIME type
    content: bytes


class RequestError(ValueError):
    """A request that cannot be answered, with the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer(showcase: Showcase, path: str, body: bytes | None) -> Answer:
    """Answer a request of the page.

    Args:
        showcase: What is shown.
        path: After the token, with its query; ``""`` is the page.
        body: JSON of a POST, None of a GET.

    Returns:
        Where the request is wrong, JSON with ``error``, one line.
    """
    address = urlsplit(path)
    query = {key: values[-1] for key, values in parse_qs(address.query).items()}
    try:
        if body is None:
            return _answer_get(showcase, address.path, query)
        return _answer_post(showcase, address.path, _read_body(body))
    except RequestError as error:
        return _json({"error": str(error)}, status=error.status)
    except (ValueError, OSError) as error:
        return _json({"error": str(error)}, status=400)


def _answer_get(showcase: Showcase, path: str, query: Mapping[str, str]) -> Answer:
    name = path or "index.html"
    if name in PAGE:
        content = resources.files("unic.explorer").joinpath("page", name).read_bytes()
        return Answer(200, PAGE[name], content)
    if path == "api/runs":
        return _json(showcase.describe())
    if path == "api/comparison":
        return _json(showcase.compare())
    if path.startswith("api/steering/"):
        return _ask_steering(showcase.steering, path.removeprefix("api/steering/"), query)
    parts = path.split("/")
    if len(parts) < 3 or parts[0] != "api":
        raise RequestError(404, _NOTHING)
    shown = _find_run(showcase, parts[1])
    handler = _OF_RUN.get(parts[2])
    if handler is None:
        raise RequestError(404, _NOTHING)
    return handler(shown, parts[3:], query)


def _answer_post(showcase: Showcase, path: str, body: Mapping[str, Any]) -> Answer:
    if path == "api/steering/marks":
        return _json(_need(showcase.steering).mark(body))
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "api" and parts[2] in ("csv", "ids"):
        shown = _find_run(showcase, parts[1])
        rows = _rows(body.get("rows"), shown)
        if parts[2] == "ids":
            lines = "".join(f"{shown.exhibit.image_ids[row]}\n" for row in rows)
            return Answer(200, TEXT, lines.encode())
        table = tabulate_images(shown.exhibit, shown.columns, rows)
        return Answer(200, CSV, table.to_csv(index=False).encode())
    raise RequestError(404, _NOTHING)


def _ask_steering(steering: Steering | None, what: str, query: Mapping[str, str]) -> Answer:
    if what == "state":
        return _json(_need(steering).describe())
    if what == "clusters":
        return Answer(200, RAW, _need(steering).clusters.astype("<i4").tobytes())
    if what == "suggestions":
        return _json(_need(steering).suggest(_whole(query.get("n", "20"))))
    raise RequestError(404, _NOTHING)


def _send_column(shown: Shown, rest: Sequence[str], _: Mapping[str, str]) -> Answer:
    if rest == ["positions"]:
        positions = np.ascontiguousarray(shown.exhibit.map.read("positions"), dtype="<f4")
        return Answer(200, RAW, positions.tobytes())
    if len(rest) != 1 or rest[0] not in shown.columns:
        raise RequestError(404, f"column must be one of {', '.join(shown.columns)}")
    return Answer(200, RAW, shown.columns[rest[0]].encode())


def _send_image(shown: Shown, rest: Sequence[str], _: Mapping[str, str]) -> Answer:
    return _json(describe_image(shown.exhibit, _row(rest, shown)))


def _send_picture(shown: Shown, rest: Sequence[str], _: Mapping[str, str]) -> Answer:
    content = shown.pictures.draw_picture(_row(rest, shown))
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
    return Answer(200, kind, content)


def _send_atlas(shown: Shown, rest: Sequence[str], query: Mapping[str, str]) -> Answer:
    if rest:
        raise RequestError(404, _NOTHING)
    rows = [_whole(row) for row in query.get("rows", "").split(",")]
    content = shown.pictures.draw_atlas(rows, size=_whole(query.get("size", "64")))
    return Answer(200, "image/jpeg", content)


def _send_found(shown: Shown, _: Sequence[str], query: Mapping[str, str]) -> Answer:
    return _json({"images": search_images(shown.exhibit.image_ids, query.get("q", ""))})


def _send_clusters(shown: Shown, _: Sequence[str], __: Mapping[str, str]) -> Answer:
    return _json({"clusters": shown.clusters})


_OF_RUN: dict[str, Callable[[Shown, Sequence[str], Mapping[str, str]], Answer]] = {
    "column": _send_column,
    "image": _send_image,
    "picture": _send_picture,
    "atlas": _send_atlas,
    "search": _send_found,
    "clusters": _send_clusters,
}


def _find_run(showcase: Showcase, number: str) -> Shown:
    if not number.isdecimal() or int(number) >= len(showcase.shown):
        raise RequestError(404, f"run must be in 0 to {len(showcase.shown) - 1}")
    return showcase.shown[int(number)]


def _need(steering: Steering | None) -> Steering:
    if steering is None:
        raise RequestError(409, "marks need clusters: run the experiment to its end")
    return steering


def _row(rest: Sequence[str], shown: Shown) -> int:
    if len(rest) != 1:
        raise RequestError(404, _NOTHING)
    return _rows([_whole(rest[0])], shown)[0]


def _rows(given: Any, shown: Shown) -> list[int]:
    n_images = shown.exhibit.n_images
    if not isinstance(given, list) or not all(
        isinstance(row, int) and 0 <= row < n_images for row in given
    ):
        raise RequestError(400, f"rows must be whole numbers in 0 to {n_images - 1}")
    return given


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise RequestError(400, f"a whole number was expected, got {text[:40]!r}")
    return int(text)


def _read_body(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        raise RequestError(400, "the body must be JSON") from None
    if not isinstance(content, dict):
        raise RequestError(400, "the body must be a JSON object")
    return content


def _json(content: Any, *, status: int = 200) -> Answer:
    return Answer(status, JSON, json.dumps(content, allow_nan=False).encode())
