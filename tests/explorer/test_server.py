import http.client
import json
import threading
from collections.abc import Iterator

import pytest

from tests.explorer.exhibits import write_exhibit
from unic.explorer.guard import HEADERS
from unic.explorer.server import Server
from unic.explorer.showcase import open_showcase


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = write_exhibit(tmp_path_factory.mktemp("project") / "results" / "toy")
    with Server(open_showcase([folder])) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: Server,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, body=body, headers=headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    assert len(server.token) >= 32


def test_the_page_and_its_data(server: Server) -> None:
    response, content = ask(server, f"/{server.token}/")
    assert response.status == 200
    assert content.startswith(b"<!doctype html>")
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    response, content = ask(server, f"/{server.token}/api/runs")
    assert json.loads(content)["runs"][0]["name"] == "toy"
    assert "Python" not in response.headers["Server"]


@pytest.mark.parametrize("path", ["/", "/api/runs", "/wrong/api/runs", "/wrong/", "//", "/%00"])
def test_without_the_token_nothing_is_read(server: Server, path: str) -> None:
    response, content = ask(server, path)
    assert response.status == 403
    assert content == b"This address is not for you.\n"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_others_read_nothing_even_with_the_token(
    server: Server, headers: dict[str, str]
) -> None:
    for path in ("", "api/runs", "api/0/image/1", "api/0/picture/1"):
        response, content = ask(server, f"/{server.token}/{path}", headers=headers)
        assert response.status == 403
        assert b"toy" not in content


def test_marks_need_a_token_and_json_of_the_page(server: Server) -> None:
    body = json.dumps({"action": "label", "rows": [1], "label": "a"}).encode()
    path, own = f"/{server.token}/api/steering/marks", {"Content-Type": "application/json"}
    refused = [
        ("/x/api/steering/marks", own),
        (path, {"Content-Type": "text/plain"}),  # what a form of another page can send
        (path, {"Content-Type": "application/x-www-form-urlencoded"}),
        (path, own | {"Origin": "https://evil.example"}),
        (path, own | {"Content-Length": "99999999999"}),
    ]
    for address, headers in refused:
        response, _ = ask(server, address, method="POST", body=body, headers=headers)
        assert response.status == 403
    assert server.showcase.steering is not None
    assert server.showcase.steering.describe()["n_marks"] == 0
    response, content = ask(server, path, method="POST", body=body, headers=own)
    assert response.status == 200
    assert [1, "a"] in json.loads(content)["labels"]


def test_other_methods_are_not_there(server: Server) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        response, _ = ask(server, f"/{server.token}/api/runs", method=method)
        assert response.status == 501


def test_a_taken_port_is_refused(server: Server) -> None:
    with pytest.raises(OSError, match="in use"):
        Server(server.showcase, port=server.server_port)


def test_a_fault_is_told_to_the_page(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.showcase, "shown", None)  # what no run leaves behind
    response, content = ask(server, f"/{server.token}/api/runs")
    assert response.status == 500
    assert "its terminal says more" in json.loads(content)["error"]
