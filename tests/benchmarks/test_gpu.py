"""The page of a GPU: what becomes of its sections, of which each is a real process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import ROOT, SECTIONS, SHOWN_LINES, Section, make_page

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


def section(name: str, code: str, **options: object) -> Section:
    return Section(name, f"About {name}.", ("-c", code), **options)  # type: ignore[arg-type]


GOOD = section("good", "print('a table'); print('ratio_faiss 4.25')")
ABSENT = section("absent", "print('not run: no GPU, got cuda'); raise SystemExit(77)")
BAD = section("bad", "print('half of a table'); raise ValueError('the kernel | died')")
DEAD = section("dead", "import os; os.abort()")


@pytest.mark.parametrize(
    ("sections", "device", "expected"),
    [
        ([GOOD], "some GPU", 0),
        ([GOOD], None, 0),
        ([GOOD, ABSENT], None, 0),
        ([GOOD, ABSENT], "some GPU", 1),
        ([GOOD, BAD], "some GPU", 1),
        ([BAD, GOOD], None, 1),
        ([DEAD, GOOD], "some GPU", 1),
        ([], None, 0),
    ],
)
def test_the_status_says_whether_all_is_as_it_should_be(
    sections: list[Section], device: str | None, expected: int, tmp_path: Path
) -> None:
    page = tmp_path / "gpu" / "page.md"
    assert make_page(sections, page, device=device) == expected
    text = page.read_text() if sections else ""
    assert all(f"\n## {shown.name}\n" in text for shown in sections)


def test_a_failure_is_told_and_loses_no_other_section(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    make_page([BAD, DEAD, GOOD], page, device="some GPU, 80 GiB")
    text = page.read_text()
    assert "GPU: some GPU, 80 GiB. Date: 20" in text
    assert "Commit: " in text
    assert "**Failed**: status 1: ValueError: the kernel | died" in text
    assert "the kernel \\| died |\n" in text, "a table has no cell more"
    assert "half of a table" in text
    assert "Traceback" in text
    assert "**Failed**: status -6" in text
    assert "| ratio_faiss | 4.25 |" in text
    assert "a table\nratio_faiss 4.25\n```" in text
    assert "$ python -c" in text
    assert "to come" not in text
    assert (tmp_path / "bad.log").read_text().startswith("half of a table")


def test_what_was_not_run_is_told_with_its_reason_and_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    make_page([ABSENT], page, device=None)
    text = page.read_text()
    assert "GPU: none" in text
    assert "Not run: no GPU, got cuda\n\nIt would have run:\n\n```\n$ python -c" in text


def test_a_command_that_did_nothing_was_not_run(tmp_path: Path) -> None:
    idle = section("tests", "print('== 13 skipped in 2 s ==')", evidence=r"\b\d+ passed\b")
    busy = section("others", "print('2 passed, 13 skipped')", evidence=r"\b\d+ passed\b")
    page = tmp_path / "page.md"
    assert make_page([idle, busy], page, device=None) == 0
    assert "Not run: 13 skipped in 2 s\n" in page.read_text()
    assert make_page([busy], page, device="some GPU") == 0
    assert make_page([idle], page, device="some GPU") == 1


def test_a_command_that_takes_too_long_or_says_nothing_has_failed(tmp_path: Path) -> None:
    slow = section("slow", "import time; time.sleep(60)", limit=0.5)
    mute = section("mute", "raise SystemExit(3)")
    page = tmp_path / "page.md"
    assert make_page([slow, mute], page, device=None) == 1
    assert "it took more than 0.5 s" in page.read_text()
    assert "status 3: it printed nothing" in page.read_text()


def test_a_long_output_is_cut_and_cannot_end_its_block(tmp_path: Path) -> None:
    long = section(
        "long", f"print('\\n'.join(map(str, range({SHOWN_LINES} + 7)))); print(3 * chr(96))"
    )
    make_page([long], tmp_path / "page.md", device=None)
    text = (tmp_path / "page.md").read_text()
    assert "... 8 lines before, in long.log" in text
    assert text.count("```") == 2
    assert "\n7\n" not in text


def test_every_section_is_named_once_and_asks_for_a_gpu() -> None:
    assert len({shown.name for shown in SECTIONS}) == len(SECTIONS)
    for shown in SECTIONS:
        assert "cuda" in shown.command or shown.name == "tests"
        if shown.command[1] != "pytest":
            assert (ROOT / (shown.command[1].replace(".", "/") + ".py")).is_file()


@NO_GPU
@pytest.mark.slow
def test_without_a_gpu_all_sections_go_as_far_as_the_device(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks.gpu", "--page", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = page.read_text()
    assert text.count("It would have run:") == len(SECTIONS)
    assert text.count("got cuda\n\nIt would") == len(SECTIONS) - 1  # tests are skipped
    assert "the workflow is planned with machine.device: cuda" in text
