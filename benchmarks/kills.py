"""Kill the workflow or a part of it at random moments, again and again, and look at what is left.

    python -m benchmarks.kills --times 100
    python -m benchmarks.kills --times 30 --victims job server snakemake

The small experiment of the tests runs once undisturbed. Then it runs in another checkout, where
something is killed (SIGKILL) after a random time, until it ends by itself, and starts again from
nothing: Snakemake and all it started, Snakemake alone, the process that jobs are forked from, or
a job. After each kill no process may be left, and every artifact that is there must be, byte by
byte, that of the undisturbed run.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.workflow.project import Project, copy_project

TARGET = "results/tiny/metrics.json"
PATTERNS = (  # without what holds times: history.csv, pages, logs
    *("*.zarr/**/*", "*.parquet", "*.safetensors", "scores.json", "metrics.json"),
    *("decoded.json", "decoded.bin"),
)
SETTINGS = "    shards: 2\n    data: {decoded: 32}\n"


VICTIMS = ("all", "snakemake", "server", "job")
MARK = "UNIC_KILLS"  # variable of the environment by which what is left is found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100, help="kills of each victim")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=["all"])
    parser.add_argument("--longest", type=float, default=30.0, help="seconds before a kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--targets", nargs="+", default=[TARGET], help="files to make")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = (prepare(Path(folder, name)) for name in ("undisturbed", "killed"))
        started = time.monotonic()
        undisturbed.run("--", *arguments.targets)
        seconds = time.monotonic() - started
        expected = read_artifacts(undisturbed)
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} files of artifacts", flush=True)
        print(f"{'victim':10} kills  runs that ended  files compared  differ  processes left")
        for victim in arguments.victims:
            generator = np.random.default_rng(arguments.seed)
            moments = generator.uniform(1, arguments.longest, arguments.times)
            killings = Killings(killed, arguments.targets, victim, expected)
            for seconds in moments:
                killings.kill_after(seconds)
            killings.finish()
            n_runs, n_seen = killings.n_ended, killings.n_seen
            print(f"{victim:10} {len(moments):5} {n_runs:16} {n_seen:15} {0:7} {0:15}", flush=True)


@dataclass
class Killings:
    """Kills of one part of a workflow, and what they leave."""

    project: Project
    targets: list[str]
    victim: str
    expected: dict[str, bytes]
    n_ended: int = 0  # runs without a kill
    n_seen: int = 0  # files compared

    def kill_after(self, seconds: float) -> None:
        """Kill the victim once, in as many runs as it takes."""
        while not self._run(seconds):
            self._compare(is_over=True)
            shutil.rmtree(self.project.folder / "results")
            self.n_ended += 1
        self._compare(is_over=False)

    def finish(self) -> None:
        """Let it come to its end, and start from nothing."""
        self.project.run("--nolock", "--", *self.targets)
        self._compare(is_over=True)
        left = list((self.project.folder / "results").rglob("*.tmp-*"))
        if left:
            raise SystemExit(f"left behind: {left}")
        shutil.rmtree(self.project.folder / "results")
        self.n_ended += 1

    def _run(self, seconds: float) -> bool:
        """Whether something was killed; all must have ended a second later."""
        name = f"{MARK}={uuid.uuid4()}"
        os.environ.update([name.split("=")])  # the project hands it on
        process = self.project.start("--", *self.targets)
        is_killed = kill_within(process, self.victim, seconds)
        status = process.wait(900)  # jobs may go on without a server
        if not is_killed and status:
            raise SystemExit(f"the workflow must go on after a kill, it ended with {status}")
        time.sleep(1)
        left = find_processes(name)
        if left:
            raise SystemExit(f"left running after a kill of {self.victim}: {left}")
        return is_killed

    def _compare(self, *, is_over: bool) -> None:
        found = read_artifacts(self.project)
        compare(found, self.expected, is_over=is_over)
        self.n_seen += len(found)


def kill_within(process: "subprocess.Popen[bytes]", victim: str, seconds: float) -> bool:
    """Kill a part of the workflow after this time, or as soon after it as there is such a part."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    while process.poll() is None:
        pids = find_victims(process.pid, victim)
        with suppress(ProcessLookupError):
            for pid in pids[:1]:
                (os.killpg if victim == "all" else os.kill)(pid, signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def find_victims(snakemake: int, victim: str) -> list[int]:
    if victim in ("all", "snakemake"):
        return [snakemake]
    servers = [pid for pid in children(snakemake) if b"unic.runtime.forking" in command(pid)]
    return (
        servers if victim == "server" else [pid for server in servers for pid in children(server)]
    )


def children(parent: int) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob(f"{parent}/task/*/children"):
        with suppress(OSError):  # gone
            found += map(int, path.read_text().split())
    return found


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def find_processes(name: str) -> list[bytes]:
    """Commands of the processes that were started with a variable of the environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if name.encode() in path.read_bytes():
                found.append(path.with_name("cmdline").read_bytes())
    return found


def prepare(folder: Path) -> Project:
    project = copy_project(folder)
    config = project.folder / "config/tiny.yaml"
    config.write_text(config.read_text().replace("    seeds: ", f"{SETTINGS}    seeds: "))
    # A job that compiles for longer than it lives would never end.
    command = [sys.executable, "-m", "unic.cli", "compile"]
    subprocess.run(command, cwd=folder, env=project.environment, check=True)
    return project


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
