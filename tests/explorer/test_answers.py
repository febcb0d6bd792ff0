import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiment import N_IMAGES, write_experiment
from tests.explorer.exhibits import write_exhibit
from unic.explorer.answers import PAGE, Answer, answer
from unic.explorer.showcase import Showcase, open_showcase

FILES = resources.files("unic.explorer").joinpath("page")


@pytest.fixture
def showcase(tmp_path: Path) -> Showcase:
    return open_showcase([write_exhibit(tmp_path / "results" / "toy")])


def get(showcase: Showcase, path: str) -> Any:
    found = answer(showcase, path, None)
    assert found.status == 200, found.content
    return json.loads(found.content)


def post(showcase: Showcase, path: str, body: Any) -> Answer:
    return answer(showcase, path, json.dumps(body).encode())


def test_the_page_is_all_files_of_its_folder() -> None:
    assert sorted(PAGE) == sorted(file.name for file in FILES.iterdir())


def test_no_file_of_the_page_names_another_server(showcase: Showcase) -> None:
    for name in PAGE:
        text = answer(showcase, name, None).content.decode()
        assert not re.search(
            r"(https?:)?//[a-z0-9.-]+\.[a-z]", re.sub(r"^\s*//.*", "", text, flags=re.M)
        ), name
        assert not re.search(
            r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b", text
        ), name
        imports = re.findall(r'from "\./([^"]+)"', text)
        assert set(imports) <= set(PAGE), name


def test_the_start_of_the_page(showcase: Showcase) -> None:
    assert answer(showcase, "", None) == answer(showcase, "index.html", None)
    about = get(showcase, "api/runs")
    assert about["can_steer"]
    (run,) = about["runs"]
    assert (run["name"], run["n_images"], run["n_clusters"], run["n_neighbors"]) == (
        "toy",
        40,
        4,
        5,
    )
    assert run["columns"][0] == {
        "key": "cluster",
        "title": "cluster",
        "kind": "category",
        "names": ["0", "1", "2", "3"],
    }


def test_columns_and_positions(showcase: Showcase) -> None:
    found = answer(showcase, "api/0/column/positions", None)
    assert len(found.content) == N_IMAGES * 2 * 4
    clusters = np.frombuffer(answer(showcase, "api/0/column/cluster", None).content, dtype="<i4")
    assert clusters.tolist() == [row % 4 for row in range(N_IMAGES)]


def test_images_and_their_pictures(showcase: Showcase) -> None:
    about = get(showcase, "api/0/image/7")
    assert about["neighbors"][0]["row"] == 7
    assert answer(showcase, "api/0/picture/7", None).kind == "image/png"
    assert answer(showcase, "api/0/atlas?rows=3,1,2&size=32", None).kind == "image/jpeg"
    assert get(showcase, "api/0/search?q=/7.png")["images"] == [{"row": 7, "id": about["id"]}]


def test_clusters(showcase: Showcase) -> None:
    clusters = get(showcase, "api/0/clusters")["clusters"]
    assert [each["size"] for each in clusters] == [10] * 4
    assert set(clusters[0]) >= {"confidence", "neighbor_agreement", "nearest", "majority_class"}


def test_tables_of_images(showcase: Showcase) -> None:
    found = post(showcase, "api/0/csv", {"rows": [4, 2]})
    assert found.kind.startswith("text/csv")
    head, *lines = found.content.decode().splitlines()
    assert head.startswith("path,row,cluster,confidence")
    assert [line.split(",")[1] for line in lines] == ["4", "2"]
    names = post(showcase, "api/0/ids", {"rows": [4, 2]}).content.decode().splitlines()
    assert [Path(name).stem for name in names] == ["4", "2"]


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("nothing", 404, "nothing at this address"),
        ("../guard.py", 404, "nothing at this address"),
        ("page/../../guard.py", 404, "nothing at this address"),
        ("%2e%2e/guard.py", 404, "nothing at this address"),
        ("api/1/column/cluster", 404, "run must be in 0 to 0"),
        ("api/-1/column/cluster", 404, "run must be"),
        ("api/0/column/features", 404, "column must be one of cluster, confidence"),
        ("api/0/column/../../x", 404, "column must be one of"),
        ("api/0/image/40", 400, "rows must be whole numbers in 0 to 39"),
        ("api/0/image/-1", 400, "a whole number was expected"),
        ("api/0/image/%2Fetc%2Fpasswd", 400, "a whole number was expected"),
        ("api/0/picture/", 400, "a whole number was expected"),
        ("api/0/picture/1/2", 404, "nothing at this address"),
        ("api/0/atlas?rows=1,x", 400, "a whole number was expected, got 'x'"),
        ("api/0/atlas?rows=1&size=1000000", 400, "size must be one of"),
        ("api/0/passwords", 404, "nothing at this address"),
        ("api/comparison", 400, "two finished experiments can be compared"),
    ],
)
def test_wrong_requests_are_refused_in_a_line(
    showcase: Showcase, path: str, status: int, message: str
) -> None:
    found = answer(showcase, path, None)
    assert found.status == status
    error = json.loads(found.content)["error"]
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body must be JSON"),
        (b"[]", "the body must be a JSON object"),
        (b'{"rows": "all"}', "rows must be whole numbers"),
        (b'{"rows": [0, 40]}', "rows must be whole numbers in 0 to 39"),
        (b'{"rows": [1.5]}', "rows must be whole numbers"),
    ],
)
def test_wrong_bodies_are_refused(showcase: Showcase, body: bytes, message: str) -> None:
    found = answer(showcase, "api/0/csv", body)
    assert found.status == 400
    assert message in json.loads(found.content)["error"]


def test_marks_are_kept_and_the_state_is_told(showcase: Showcase) -> None:
    assert get(showcase, "api/steering/state")["n_marks"] == 0
    found = post(showcase, "api/steering/marks", {"action": "name", "cluster": 1, "name": "<b>"})
    state = json.loads(found.content)
    assert state["names"]["1"] == "<b>"
    assert get(showcase, "api/steering/state")["names"] == state["names"]
    clusters = np.frombuffer(answer(showcase, "api/steering/clusters", None).content, dtype="<i4")
    assert len(clusters) == N_IMAGES


def test_without_clusters_nothing_can_be_marked(tmp_path: Path) -> None:
    showcase = open_showcase([write_experiment(tmp_path / "results" / "toy")])
    assert not get(showcase, "api/runs")["can_steer"]
    found = post(showcase, "api/steering/marks", {"action": "undo"})
    assert found.status == 409
    assert "run the experiment to its end" in json.loads(found.content)["error"]
