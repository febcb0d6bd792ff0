"""The server of the explorer: on this machine alone, for whoever has the token."""

import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from unic.explorer.answers import JSON, MAX_BODY, Answer, answer
from unic.explorer.guard import HEADERS, HOST, is_local, strip_token
from unic.explorer.showcase import Showcase

_DENIED = Answer(403, "text/plain; charset=utf-8", b"This address is not for you.\n")

_FAULT = Answer(500, JSON, b'{"error": "a fault of the explorer; its terminal says more"}')


class Server(ThreadingHTTPServer):
    """Serves one showcase.

    Args:
        showcase: What is shown.
        port: 0 = any that is free.

    Raises:
        OSError: If the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, showcase: Showcase, *, port: int = 0) -> None:
        self.showcase = showcase
        self.token = secrets.token_urlsafe(24)
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a page that was closed before it had its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def address(self) -> str:
        """Of the page, with the token."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    """A request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "unic", ""

    def do_GET(self) -> None:
        """Answer what changes nothing."""
        self._answer(None)

    def do_POST(self) -> None:
        """Answer what marks images, or asks with a long list of them."""
        length = self.headers.get("Content-Length", "")
        is_json = self.headers.get_content_type() == "application/json"
        if not is_json or not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True  # what it has sent is not read
            self._send(_DENIED)
            return
        self._answer(self.rfile.read(int(length)))

    def _answer(self, body: bytes | None) -> None:
        path = strip_token(self.path, self.server.token)
        if path is None or not is_local(dict(self.headers), self.server.server_port):
            self._send(_DENIED)
            return
        try:
            found = answer(self.server.showcase, path, body)
        except Exception:
            self._send(_FAULT)  # the terminal has the rest
            raise
        self._send(found)

    def _send(self, found: Answer) -> None:
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        self.send_header("Content-Length", str(len(found.content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(found.content)

    def log_message(self, *_: object) -> None:
        """Say nothing: requests hold the token."""
