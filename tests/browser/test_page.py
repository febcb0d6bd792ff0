"""The explorer in a browser without a screen; `make test-browser` gets what that needs."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.photos.folders import write_digits
from unic.inspection.neighbors import open_artifacts

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
MARKUP = "<img src=x onerror=alert(1)>.png"
BACKBONE = ("--backbone", "bundled:digits_test_resnet", "--device", "cpu")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Place(NamedTuple):
    """Where somebody stands: photos, and the results of clustering them."""

    folder: Path
    labels: dict[str, int]

    @property
    def results(self) -> Path:
        return self.folder / "results" / "photos"

    def run(self, *arguments: str) -> str:
        finished = subprocess.run(
            [sys.executable, "-m", "unic.cli", *arguments],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout


class Explorer(NamedTuple):
    """The command, running."""

    process: subprocess.Popen[str]
    address: str

    def stop(self, how: int = signal.SIGKILL) -> int:
        self.process.send_signal(how)
        self.process.communicate(timeout=20)
        return self.process.returncode


def environment() -> dict[str, str]:
    folders = [str(ROOT), os.environ.get("PYTHONPATH")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("standing")
    labels = write_digits(folder / "photos", 200)
    (folder / "photos" / "digit_0000.png").rename(folder / "photos" / MARKUP)
    labels[MARKUP] = labels.pop("digit_0000.png")
    place = Place(folder, labels)
    place.run("cluster", "photos", "-k", "10", *BACKBONE)
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu"]
        opened = driver.chromium.launch(executable_path=found, args=options)
        yield opened
        opened.close()


@pytest.fixture
def explorer(place: Place) -> Iterator[Explorer]:
    explorer = explore(place, "results/photos")
    yield explorer
    explorer.stop()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of which every fault fails the test, and which reaches this machine alone."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(f"a dialog: {dialog.message}"))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on("request", lambda asked: faults.append(asked.url) if is_foreign(asked.url) else None)
    yield page
    context.close()
    assert not faults


def is_foreign(address: str) -> bool:
    return not address.startswith(("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:"))


def explore(place: Place, *results: str) -> Explorer:
    process = subprocess.Popen(
        [sys.executable, "-m", "unic.cli", "explore", *results],
        cwd=place.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("http://"):
            return Explorer(process, line.strip())
    raise AssertionError("the explorer did not start")


def open_page(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("html[data-ready='1']", timeout=60_000)


def choose(page: Any, row: int) -> None:
    page.fill("#search", f"#{row}")
    page.click("#found button")
    page.wait_for_selector(f"dt:text-is('row') + dd:text-is('{row}')")


def find_point(page: Any) -> tuple[float, float]:
    """A place in the map where the pointer is on an image."""
    box = page.locator(".map").bounding_box()
    for i in range(400):
        x = box["x"] + box["width"] * (0.1 + 0.8 * (i % 20) / 20)
        y = box["y"] + box["height"] * (0.1 + 0.8 * (i // 20) / 20)
        page.mouse.move(x, y)
        if page.evaluate("() => document.getElementById('tip').dataset.row !== undefined"):
            page.wait_for_selector("#tip:not([hidden])")
            return x, y
    raise AssertionError("no image was found in the map")


def rows_of(page: Any, heading: str) -> list[int]:
    """The images of the gallery below a heading."""
    buttons = page.locator(f"h3:has-text('{heading}') + div .gallery > button")
    return [int(button.get_attribute("data-row")) for button in buttons.all()]


def test_a_click_shows_the_neighbors_of_the_artifact(
    page: Any, place: Place, explorer: Explorer
) -> None:
    open_page(page, explorer.address)
    x, y = find_point(page)
    row = int(page.get_attribute("#tip", "data-row"))
    page.mouse.click(x, y)
    page.wait_for_selector(".photo")
    artifacts = open_artifacts(place.results)
    assert page.inner_text("#panel h2") == artifacts.image_ids[row]
    assert rows_of(page, "nearest first") == artifacts.neighbors.read("indices")[row, 1:].tolist()
    distances = page.locator("h3:has-text('nearest first') + div .gallery small").all_inner_texts()
    expected = [f"{value:.3f}" for value in artifacts.neighbors.read("distances")[row, 1:]]
    assert distances == expected
    assert f"image={row}" in page.url
    width = page.evaluate("() => document.querySelector('.photo').naturalWidth")
    assert width == 32


def test_a_file_name_with_markup_is_text(page: Any, explorer: Explorer) -> None:
    open_page(page, explorer.address)
    page.fill("#search", "onerror")
    page.wait_for_selector("#found button")
    assert page.inner_text("#found button") == MARKUP
    page.press("#search", "Enter")
    page.wait_for_selector(".photo")
    assert page.inner_text("#panel h2") == MARKUP
    assert page.locator("img[src='x']").count() == 0


def test_filter_lasso_and_export(page: Any, place: Place, explorer: Explorer) -> None:
    open_page(page, explorer.address)
    with (place.results / "predictions.csv").open() as file:
        predictions = {line["path"]: line for line in csv.DictReader(file)}
    page.select_option("#filters select", "cluster")
    page.select_option("#filters span select", "3")
    inside = {path for path, line in predictions.items() if line["cluster"] == "3"}
    page.wait_for_selector(f"#status:has-text('{len(inside)} of 200')")
    page.keyboard.press("3")
    page.wait_for_selector(f"h2:has-text('{len(inside)} images selected')")
    with page.expect_download() as download:
        page.click("button.export")
    saved = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    exported = list(csv.DictReader(saved))
    assert {line["path"] for line in exported} == inside
    assert {line["cluster"] for line in exported} == {"3"}
    page.keyboard.press("Escape")
    page.keyboard.press("l")
    box = page.locator(".map").bounding_box()
    left, top, right, bottom = (
        *(box["x"] + 3, box["y"] + 3),
        *(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3),
    )
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y, steps=3)
    page.mouse.up()
    page.wait_for_selector("h2:has-text('200 images selected')")
    address = page.url
    page.goto("about:blank")
    open_page(page, address)  # a link leads to what was seen
    page.wait_for_selector("h2:has-text('200 images selected')")


def test_a_view_is_kept_in_its_link(page: Any, explorer: Explorer) -> None:
    open_page(page, explorer.address)
    page.select_option("#color", "union")
    choose(page, 7)
    page.keyboard.press("+")
    page.wait_for_timeout(400)  # until the address follows
    address, heading = page.url, page.inner_text("#panel h2")
    assert "view=" in address
    page.goto("about:blank")
    open_page(page, address)
    page.wait_for_selector(".photo")
    assert page.inner_text("#panel h2") == heading
    assert page.input_value("#color") == "union"
    assert page.url == address


def test_light_and_dark(page: Any, explorer: Explorer) -> None:
    open_page(page, explorer.address)
    color = "() => getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(color)
    page.keyboard.press("d")
    page.wait_for_selector("html[data-theme='dark']")
    assert page.evaluate(color) != before
    page.reload()
    page.wait_for_selector("html[data-ready='1']")
    assert page.evaluate(color) != before


def test_marks_are_known_to_the_next_run(page: Any, place: Place, explorer: Explorer) -> None:
    open_page(page, explorer.address)
    page.keyboard.press("2")
    page.click("tbody tr >> nth=0")
    page.fill("#name", "<i>zero</i>, or so")
    page.press("#name", "Enter")
    page.wait_for_selector("h2:has-text('<i>zero</i>, or so')")
    names = {}
    for row in (10, 60, 110, 150, 190):
        choose(page, row)
        image = page.inner_text("#panel h2")
        names[image] = f"digit {place.labels[image]}"
        page.fill("input.label", names[image])
        page.press("input.label", "Enter")
        page.wait_for_selector(f".marks .note:has-text('said: {names[image]}')")
    page.goto("about:blank")  # a page asks for pictures as long as the pointer is on it
    explorer.stop()  # by kill -9: nothing that was said is lost
    with (place.results / "labels.csv").open(encoding="utf-8", newline="") as file:
        labels = {line["path"]: line["label"] for line in csv.DictReader(file)}
    assert names.items() <= labels.items()
    assert "<i>zero</i>, or so" in labels.values()

    again = explore(place, "results/photos")
    open_page(page, again.address)
    page.click("#tabs button:has-text('Steer')")
    page.wait_for_selector("pre")
    command = page.locator("pre").first.inner_text()
    look = page.locator("pre").nth(1).inner_text()
    page.goto("about:blank")
    again.stop()
    assert command.startswith("unic again")
    place.run(*command.split()[1:])

    both = explore(place, *look.split()[2:])
    open_page(page, both.address)
    for image, name in names.items():
        page.fill("#search", image)
        page.press("#search", "Enter") if page.wait_for_selector("#found button") else None
        page.wait_for_selector(f"#panel h2:has-text('{image}')")
        assert page.inner_text("dt:has-text('known label') + dd") == name
    page.click("#tabs button:has-text('Compare')")
    page.wait_for_selector("h3:has-text('Clusters that were paired')")
    page.click("button:has-text('Side by side')")
    page.wait_for_selector(".map >> nth=1")
    page.goto("about:blank")
    both.stop()


def test_ctrl_c_ends_it_quietly(place: Place) -> None:
    assert explore(place, "results/photos").stop(signal.SIGINT) == 0


def test_the_answers_of_a_suggestion_are_kept(page: Any, explorer: Explorer) -> None:
    open_page(page, explorer.address)
    page.click("#tabs button:has-text('Steer')")
    page.click("button:has-text('Ask me about 20 images')")
    page.wait_for_selector(".ask")
    n_asked = page.locator(".ask").count()
    assert n_asked == 20
    said = re.search(r"(\d+) images? labeled", page.inner_text("#panel p"))
    page.locator(".ask input").first.fill("something")
    page.locator(".ask input").first.press("Enter")
    page.wait_for_selector(f".ask >> nth={n_asked - 1}", state="detached")
    assert said is not None
    state = page.evaluate("async () => (await fetch('api/steering/state')).json()")
    assert len(state["labels"]) == int(said.group(1)) + 1
    json.dumps(state)
