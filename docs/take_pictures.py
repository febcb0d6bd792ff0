"""Take the pictures of the explorer that the documentation shows: `make pictures`.

Of `results/digits`, after `make demo`, in a Chromium without a screen; needs playwright.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
IMAGE = "1243"  # discarded by cleaning, see howto/inspect_neighbors.md


def main() -> None:
    """Start the explorer, and look at it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="?", default="results/digits")
    options = parser.parse_args()
    command = [sys.executable, "-m", "unic.cli", "explore", options.results]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = next(line.strip() for line in process.stdout if line.startswith("http://"))
        try:
            take_pictures(address)
        finally:
            process.terminate()


def take_pictures(address: str) -> None:
    """An image with its neighbors, a cluster, a selection in the dark, and what is asked."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector("html[data-ready='1']")
        page.fill("#search", f"#{IMAGE}")
        page.wait_for_selector("#found button")
        page.press("#search", "Enter")
        page.wait_for_selector(".photo")
        save(page, "explorer_image")
        page.keyboard.press("2")
        page.wait_for_selector("tbody tr")
        page.click("tbody tr >> nth=1")
        save(page, "explorer_cluster")
        page.keyboard.press("d")
        page.select_option("#color", "confidence")
        page.select_option("#filters select", "confidence")
        page.wait_for_selector("#filters input")
        page.fill("#filters input >> nth=1", "0.9")
        page.press("#filters input >> nth=1", "Enter")
        page.click("#tabs button:has-text('Selection')")
        save(page, "explorer_selection")
        page.keyboard.press("d")
        page.keyboard.press("Escape")
        page.select_option("#color", "cluster")
        page.click("#tabs button:has-text('Steer')")
        page.click("button:has-text('Ask me about 20 images')")
        page.wait_for_selector(".ask")
        save(page, "explorer_steer")
        browser.close()


def save(page: Any, name: str) -> None:
    """Keep what the page shows as a picture of the documentation."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)  # until the latest pictures are drawn
    page.screenshot(path=ROOT / "docs" / f"{name}.png")


if __name__ == "__main__":
    main()
