"""A checkout in a folder of its own, on which Snakemake runs as for a user."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = (
    *("Snakefile", "README.md", "config", "environment.yml", "profiles", "unic", "workflow"),
    "snakemake_executor_plugin_fork",
)
TINY = """\
experiments:
  tiny:
    base: digits
    seeds: [0]
    finetuning:
      epochs: 1
      head_width: 32
    kmeans:
      n_restarts: 1
      pixels: false
"""


@dataclass(frozen=True)
class Project:
    """A checkout in a folder of its own."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", "--nocolor"),
            *("--configfile", "config/tiny.yaml", *arguments),
        ]

    @property
    def environment(self) -> dict[str, str]:
        folders = [str(self.folder), os.environ.get("PYTHONPATH")]
        path = os.pathsep.join(folder for folder in folders if folder)
        return os.environ | {"PYTHONPATH": path, "TQDM_DISABLE": "1"}

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the workflow on two cores without waiting for it; see :func:`kill`."""
        return subprocess.Popen(
            self.command("--cores", "2", "--nolock", *arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> None:
        finished = self.snakemake("--cores", "2", *arguments)
        assert finished.returncode == 0, finished.stdout + finished.stderr

    def plan(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule would run."""
        finished = self.snakemake("--dry-run", *arguments)
        output = finished.stdout + finished.stderr
        assert finished.returncode == 0, output
        if "Nothing to be done" in output:
            return {}
        table = output.partition("Job stats:")[2].partition("total")[0]
        return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill what :meth:`Project.start` started, jobs and all, without warning."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def copy_project(folder: Path) -> Project:
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy2(source, folder / name)
    (folder / "config" / "tiny.yaml").write_text(TINY)
    return Project(folder)
