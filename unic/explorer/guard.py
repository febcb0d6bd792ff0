"""The guard of the server: who may ask, and what every answer forbids the page."""

import hmac
from collections.abc import Mapping

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
HEADERS = {  # of every answer: nothing from elsewhere, nothing inline, no address told to others
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def strip_token(path: str, token: str) -> str | None:
    """What follows the token in an address, None where the token is missing or another.

    Example:
        >>> strip_token("/abc/api/runs", "abc"), strip_token("/abd/api/runs", "abc")
        ('api/runs', None)
    """
    given, _, rest = path.lstrip("/").partition("/")
    return rest if hmac.compare_digest(given.encode(), token.encode()) else None


def is_local(headers: Mapping[str, str], port: int) -> bool:
    """Whether a request is to this server by its own name, from a page of its own.

    Another name in ``Host`` is that of a page elsewhere whose address was made to lead here;
    another ``Origin`` is a page that the browser has open beside this one.
    """
    allowed = [f"{name}:{port}" for name in _NAMES]
    origin = headers.get("Origin")
    is_own = origin is None or origin in [f"http://{name}" for name in allowed]
    return is_own and headers.get("Host") in allowed and _is_same_site(headers)


def _is_same_site(headers: Mapping[str, str]) -> bool:
    return headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
