"""The explorer in a browser, with many images: `python -m benchmarks.explorer --n 100000`.

Writes results of made-up images (points in clusters, 100 pictures that all names link to), serves
them in a process of its own, and opens the page in headless Chromium without a GPU. Prints the time
to the first picture of the map, the time of a frame of dragging, zooming and hovering, of a click
until the neighbors of the image are there, of a lasso and of another color, and the memory of the
server and of the page. Needs playwright and a Chromium (`--chromium`, or that of playwright).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from PIL import Image
from scipy.spatial import KDTree

from unic.images.index import write_index
from unic.storage.files import write_json, write_parquet
from unic.storage.stores import open_store, write_derived, write_features, write_known_labels

K, N_CLUSTERS, N_PICTURES, SIDE = 10, 50, 100, 96
N_STEPS = 10  # of each movement


def write_results(folder: Path, n: int) -> None:
    """An experiment of n images, finished."""
    rng = np.random.default_rng(0)
    root = folder.parents[1] / "photos"
    root.mkdir(parents=True)
    centers = rng.uniform(-1, 1, (N_CLUSTERS, 2))
    clusters = rng.integers(0, N_CLUSTERS, n)
    points = (centers[clusters] + 0.06 * rng.standard_normal((n, 2))).astype(np.float32)
    ids = [f"{row % 1000:03d}/image_{row:07d}.jpg" for row in range(n)]
    for number in range(N_PICTURES):
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"source_{number}.jpg")
    for number in range(1000):
        (root / f"{number:03d}").mkdir()
    for row, image_id in enumerate(ids):
        (root / image_id).hardlink_to(root / f"source_{row % N_PICTURES}.jpg")
    write_index(folder / "images.parquet", {"train": ids}, name="folder", root="photos")
    distances, indices = KDTree(points).query(points, k=K + 1, workers=-1)
    own = np.arange(n)[:, None]
    order = np.argsort(np.where(indices == own, -1.0, distances), axis=1, kind="stable")
    indices = np.take_along_axis(indices, order, axis=1)
    distances = np.take_along_axis(distances, order, axis=1).astype(np.float32)
    write_features(path(folder, "features"), {"train": points}, {"train": ids}, backbone="made up")
    features = open_store(path(folder, "features"), kind="features")
    mined = {"n_neighbors": K + 1, "far_rank": n // 2, "metric": "euclidean"}
    arrays = {"indices": indices, "distances": distances, "far_radius": np.ones(n, np.float32)}
    write_derived(path(folder, "neighbors"), "neighbors", arrays, of=features, parameters=mined)
    neighbors = open_store(path(folder, "neighbors"), kind="neighbors")
    union = rng.integers(K, 60, n).astype(np.int32)
    cleaned = {
        "union_size": union,
        "is_clean": union < 50,
        "reciprocity": rng.random(n, dtype=np.float32),
        "indices": indices,
    }
    kept = {"max_union_size": 50, "quantile": None}
    write_derived(path(folder, "positives"), "positives", cleaned, of=neighbors, parameters=kept)
    write_derived(
        path(folder, "map"), "map", {"positions": points / 1.3}, of=neighbors, parameters={}
    )
    write_known_labels(path(folder, "known_labels"), np.full(n, -1), ids)
    (folder / "seed0").mkdir()
    table = pd.DataFrame(
        {
            "split": "train",
            "image_id": ids,
            "cluster": clusters,
            "confidence": rng.random(n, dtype=np.float32),
        }
    )
    write_parquet(folder / "seed0" / "consensus.parquet", table)
    write_json(
        folder / "metrics.json",
        {
            "experiment": folder.name,
            "method": "consensus",
            "task": "clustering",
            "n_clusters": N_CLUSTERS,
            "seeds": [0],
            "shown": {"seed": 0},
            "methods": {"unic": {}},
            "stage_owners": {"fit_consensus": folder.name, "split_labels": folder.name},
        },
    )


def path(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.zarr" / "zarr.json"


def serve(folder: Path) -> tuple[subprocess.Popen[str], str, float]:
    """Start the command; its address, and the seconds until it is told."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "unic.cli", "explore", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("http://"):
            return process, line.strip(), time.perf_counter() - start
    raise RuntimeError("the explorer did not start")


class Hand:
    """What a person does with the page, timed in milliseconds."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.times: dict[str, list[float]] = {}

    def clock(self, name: str, act: Callable[[], object], until: str | None = None) -> None:
        """Do something, and wait for an element, or for the next frame of the screen."""
        start = time.perf_counter()
        act()
        if until is None:
            self.page.evaluate("() => new Promise((done) => requestAnimationFrame(done))")
        else:
            self.page.wait_for_selector(until, timeout=120_000)
        self.times.setdefault(name, []).append(1000 * (time.perf_counter() - start))

    def try_all(self, address: str) -> None:
        """Open the page, hover, drag, zoom, look at images, color anew, draw a lasso."""
        page, mouse = self.page, self.page.mouse
        self.clock("first picture", lambda: page.goto(address), "html[data-ready='1']")
        box = page.locator(".map").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for step in range(N_STEPS):
            self.clock("hover", partial(mouse.move, x + 7 * step, y + 5 * step))
        mouse.move(x, y)
        mouse.down()
        for step in range(N_STEPS):
            self.clock("drag", partial(mouse.move, x + 9 * step, y + 4 * step))
        mouse.up()
        for _ in range(N_STEPS):
            self.clock("zoom", partial(mouse.wheel, 0, -60))
        page.keyboard.press("f")
        for row in (5, 500, 5000):
            page.fill("#search", f"#{row}")
            page.wait_for_selector("#found button")
            enter = partial(page.press, "#search", "Enter")
            self.clock("click to neighbors", enter, f"h2:has-text('image_{row:07d}')")
        choose = partial(page.select_option, "#color", "union")
        self.clock("color", choose, "#legend:has-text('union size')")
        page.keyboard.press("l")
        mouse.move(x, y)
        mouse.down()
        for dx, dy in ((100, 0), (100, 100), (0, 100)):
            mouse.move(x + dx, y + dy)
        self.clock("lasso", mouse.up, "h2:has-text('selected')")


def memory(process: psutil.Process, *, alone: bool = False) -> float:
    """GB of a process, and of its children, that are theirs alone."""
    family = [process] if alone else [process, *process.children(recursive=True)]
    return sum(each.memory_full_info().uss for each in family) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--chromium", help="path of the browser")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "results" / "made"
        folder.mkdir(parents=True)
        write_results(folder, options.n)
        process, address, started = serve(folder)
        try:
            with sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"]
                )
                page = browser.new_page(viewport={"width": 1400, "height": 900})
                hand = Hand(page)
                hand.try_all(address)
                server = memory(psutil.Process(process.pid))
                browsing = memory(psutil.Process()) - memory(psutil.Process(), alone=True) - server
                heap = page.evaluate("() => performance.memory.usedJSHeapSize") / 1e9
                browser.close()
        finally:
            process.terminate()
    print(json.dumps({"n": options.n, "server_ready_s": round(started, 2)}))
    for name, values in hand.times.items():
        print(f"{name:20} median {np.median(values):8.1f} ms, max {max(values):8.1f} ms")
    print(
        f"memory: server {server:.2f} GB, browser {browsing:.2f} GB, of it the heap {heap:.2f} GB"
    )


if __name__ == "__main__":
    main()
