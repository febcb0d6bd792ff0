"""What a GPU gives, on one page: tests, the digits against the CPU, and the benchmarks.

Each section is a command in a process of its own, so that none loses the others. Without a GPU each
goes as far as the place where it asks for one, and the page says what was not run.
"""

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch

from benchmarks.devices import NOT_RUN, describe

ROOT = Path(__file__).parents[1]
SHOWN_LINES = 150  # of a section's output; the log has all
FIGURE = re.compile(r"^((?:ratio|share)_\w+) ([\d.]+)$", re.MULTILINE)
State = Literal["ran", "not run", "failed"]


@dataclass(frozen=True)
class Section:
    """A command of the page."""

    name: str
    about: str
    command: tuple[str, ...]  # after the name of Python
    evidence: str = ""  # a pattern in the output of a command that did something
    limit: float = 3600.0  # seconds


@dataclass(frozen=True)
class Outcome:
    """What became of a section."""

    section: Section
    state: State
    reason: str
    output: str
    seconds: float


SECTIONS = (
    Section(
        "peak",
        "The rate of the largest products, in float32 and bfloat16, which shares are of.",
        ("-m", "benchmarks.devices", "--device", "cuda"),
    ),
    Section(
        "tests",
        "All tests that need a GPU.",
        ("-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"),
        evidence=r"\b\d+ passed\b",
    ),
    Section(
        "digits",
        "The digits by the workflow on the GPU and on the CPU, metric by metric.",
        ("-m", "benchmarks.digits", "--device", "cuda"),
    ),
    Section(
        "mining",
        "Neighbors and far radii of 50,000 and 256,000 images, against faiss-gpu and cuVS.",
        (
            *("-m", "benchmarks.mining", "--device", "cuda", "--n", "50000", "256000"),
            *("--d", "768", "--k", "50", "--far-rank", "6300"),
        ),
    ),
    Section(
        "cleaning",
        "Union sizes of 256,000 images, against the CPU.",
        ("-m", "benchmarks.cleaning", "--device", "cuda", "--n", "256000"),
    ),
    Section(
        "finetune",
        "A step of the finetuning with fresh and with cached views, against the plain one.",
        (
            *("-m", "benchmarks.finetune", "--device", "cuda"),
            *("--batch", "128", "--cached-batch", "512", "--images", "1536"),
        ),
    ),
    Section(
        "frozen",
        "A step of one to ten heads on frozen features, against its products.",
        ("-m", "benchmarks.frozen", "--device", "cuda"),
    ),
    Section(
        "features",
        "Images a second of two frozen backbones.",
        ("-m", "benchmarks.features", "--device", "cuda"),
    ),
)


def run_section(section: Section, folder: Path) -> Outcome:
    """Run a command, and keep all that it prints in ``folder``."""
    command = [sys.executable, *section.command]
    start, log = time.monotonic(), folder / f"{section.name}.log"
    with log.open("w", encoding="utf-8") as stream:
        try:
            status: int | None = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"},
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=section.limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = None
    output = log.read_text("utf-8", errors="replace").strip()
    state, reason = _judge(section, status, output)
    return Outcome(section, state, reason, output, time.monotonic() - start)


def _judge(section: Section, status: int | None, output: str) -> tuple[State, str]:
    last = output.splitlines()[-1].strip() if output else "it printed nothing"
    if status is None:
        return "failed", f"it took more than {section.limit:g} s"
    if status == NOT_RUN:
        return "not run", last.removeprefix("not run: ")
    if status:
        return "failed", f"status {status}: {last}"
    if not re.search(section.evidence, output):
        return "not run", last.strip("= ")
    return "ran", ""


def write_page(page: Path, title: str, outcomes: Sequence[Outcome], n_sections: int) -> None:
    """Write the sections so far."""
    lines = ["# What a GPU gives", "", title, ""]
    lines += ["| section | state | seconds | what |", "|---|---|---|---|"]
    for outcome in outcomes:
        about, reason = outcome.section.about, outcome.reason.replace("|", "\\|")
        said = f"{about} {outcome.state.capitalize()}: {reason}" if reason else about
        lines.append(
            f"| [{outcome.section.name}](#{outcome.section.name}) | {outcome.state} | "
            f"{outcome.seconds:.0f} | {said} |"
        )
    if len(outcomes) < n_sections:
        lines += ["", f"{n_sections - len(outcomes)} more sections are still to come."]
    figures = [found for outcome in outcomes for found in FIGURE.findall(outcome.output)]
    if figures:
        lines += ["", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in figures]
    for outcome in outcomes:
        lines += ["", f"## {outcome.section.name}", "", outcome.section.about, ""]
        shown = outcome.output.splitlines()
        if outcome.state == "not run":
            lines += [f"Not run: {outcome.reason}", "", "It would have run:", ""]
        elif outcome.state == "failed":
            lines += [f"**Failed**: {outcome.reason}", ""]
        lines += ["```", f"$ {shlex.join(['python', *outcome.section.command])}"]
        if len(shown) > SHOWN_LINES:
            lines.append(
                f"... {len(shown) - SHOWN_LINES} lines before, in {outcome.section.name}.log"
            )
        lines += [*(line.replace("```", "'''") for line in shown[-SHOWN_LINES:]), "```"]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_page(sections: Sequence[Section], page: Path, *, device: str | None) -> int:
    """Run all sections and write the page, anew after each.

    Args:
        sections: What to run.
        page: Markdown file; logs lie beside it.
        device: Name of the GPU, None where there is none.

    Returns:
        Exit status: 1 if a section failed, or was not run although there is a GPU; else 0.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    title, outcomes = _title(device), list[Outcome]()
    for section in sections:
        print(f"{section.name}: {section.about}", flush=True)
        outcomes.append(run_section(section, page.parent))
        write_page(page, title, outcomes, len(sections))
        print(f"  {outcomes[-1].state} {outcomes[-1].reason}", flush=True)
    good = ("ran",) if device else ("ran", "not run")
    bad = [outcome.section.name for outcome in outcomes if outcome.state not in good]
    print(f"{page}: " + (f"not as it should be: {', '.join(bad)}" if bad else "complete"))
    return int(bool(bad))


def _title(device: str | None) -> str:
    shown = device or "none: sections went as far as the place where they ask for one"
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    return (
        f"GPU: {shown}. Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Commit: {_commit()}. "
        f"{versions}, Python {platform.python_version()}, {os.cpu_count()} cores. Shares are of "
        "peaks that are measured in the same run, by one large product; no data sheet was asked."
    )


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=Path("results/gpu/page.md"))
    names = [section.name for section in SECTIONS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some sections")
    arguments = parser.parse_args()
    device = describe(torch.device("cuda")) if torch.cuda.is_available() else None
    chosen = [section for section in SECTIONS if section.name in arguments.only]
    raise SystemExit(make_page(chosen, arguments.page, device=device))


if __name__ == "__main__":
    main()
