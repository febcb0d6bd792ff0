"""Kill the whole workflow at random moments, again and again, and look at what it left each time.

    python -m benchmarks.kills --times 100

The small experiment of the tests runs once undisturbed. Then it runs in another checkout, where
Snakemake and all its jobs are killed (SIGKILL) after a random time, until it ends by itself, and
starts again from nothing. After each kill every artifact that is there must be, byte by byte, that
of the undisturbed run.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.workflow.project import Project, copy_project, kill

TARGET = "results/tiny/metrics.json"
PATTERNS = (  # without what holds times: history.csv, pages, logs
    *("*.zarr/**/*", "*.parquet", "*.safetensors", "scores.json", "metrics.json"),
    *("decoded.json", "decoded.bin"),
)
SETTINGS = "    shards: 2\n    data: {decoded: 32}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100, help="kills")
    parser.add_argument("--longest", type=float, default=30.0, help="seconds before a kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = (prepare(Path(folder, name)) for name in ("undisturbed", "killed"))
        started = time.monotonic()
        undisturbed.run(TARGET)
        seconds = time.monotonic() - started
        expected = read_artifacts(undisturbed)
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} files of artifacts", flush=True)
        n_kills = n_runs = n_seen = 0
        while n_kills < arguments.times:
            if run_for(killed, generator.uniform(1, arguments.longest)):
                compare(read_artifacts(killed), expected, is_over=True)
                shutil.rmtree(killed.folder / "results")
                n_runs += 1
                continue
            n_kills += 1
            found = read_artifacts(killed)
            compare(found, expected, is_over=False)
            n_seen += len(found)
            if n_kills % 10 == 0:
                print(f"{n_kills} kills, {n_runs} runs ended, {n_seen} files compared", flush=True)
        killed.run("--nolock", TARGET)
        compare(read_artifacts(killed), expected, is_over=True)
        left = list((killed.folder / "results").rglob("*.tmp-*"))
        if left:
            raise SystemExit(f"left behind: {left}")
        print(f"kills {n_kills}, runs that ended {n_runs + 1}, artifacts that differ 0")


def prepare(folder: Path) -> Project:
    project = copy_project(folder)
    config = project.folder / "config/tiny.yaml"
    config.write_text(config.read_text().replace("    seeds: ", f"{SETTINGS}    seeds: "))
    # A job that compiles for longer than it lives would never end.
    command = [sys.executable, "-m", "unic.cli", "compile"]
    subprocess.run(command, cwd=folder, env=project.environment, check=True)
    return project


def run_for(project: Project, seconds: float) -> bool:
    """Whether the workflow ended within this time; it is killed, jobs and all, where it did not."""
    process = project.start(TARGET)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        return False
    if status:
        raise SystemExit(f"the workflow must go on after a kill, it ended with {status}")
    return True


def read_artifacts(project: Project) -> dict[str, bytes]:
    results = project.folder / "results"
    paths = {path for pattern in PATTERNS for path in results.rglob(pattern)}
    named = {str(path.relative_to(results)): path for path in sorted(paths) if path.is_file()}
    return {name: path.read_bytes() for name, path in named.items() if "/." not in f"/{name}"}


def compare(found: dict[str, bytes], expected: dict[str, bytes], *, is_over: bool) -> None:
    """Refuse an artifact that differs or is in parts, and one that lacks after the end."""
    parts = {name for name in found if ".parts/" in name}  # of shards, gone at the end
    known = {name: content for name, content in found.items() if name not in parts}
    wrong = [name for name, content in known.items() if expected.get(name) != content]
    stores = {name.partition(".zarr/")[0] for name in known if name.endswith(".zarr/zarr.json")}
    for store in stores:
        files = {name for name in expected if name.startswith(f"{store}.zarr/")}
        wrong += sorted(files - known.keys())
    if is_over:
        wrong += sorted(expected.keys() - known.keys())
    if wrong:
        raise SystemExit(f"{len(wrong)} artifacts differ: {wrong[:10]}")


if __name__ == "__main__":
    main()
