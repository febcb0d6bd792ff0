"""The demo as jobs of a real SLURM; `make test-slurm` starts one here and runs the demo first."""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.workflow.project import ROOT, Project, copy_project

pytestmark = pytest.mark.slurm
CLUSTER = Path(__file__).with_name("cluster.sh")
PROFILE = Path("profiles/slurm/config.yaml")
TARGET = "results/digits/metrics.json"
CANCELED, STARVED = "finetune", "index_negatives"


class Job(NamedTuple):
    """A job as SLURM shows it."""

    number: int
    rule: str
    partition: str
    gpus: str
    state: str


class Run(NamedTuple):
    """A finished run of the workflow, and all jobs that were seen meanwhile."""

    project: Project
    planned: dict[str, int]
    output: str
    status: int
    jobs: dict[int, Job]
    canceled: int | None


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    subprocess.run(["bash", CLUSTER, "up"], check=True)
    yield
    subprocess.run(["bash", CLUSTER, "down"], check=True)


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo, one job of which is canceled while it runs, and one starved of memory."""
    request.getfixturevalue("cluster")
    project = copy_project(tmp_path_factory.mktemp("slurm") / "project")
    adapt_profile(project.folder / PROFILE)
    planned = project.plan(TARGET)
    jobs: dict[int, Job] = {}
    canceled: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            for job in list_jobs():
                jobs[job.number] = job
                checkpoints = project.folder.glob("results/digits/seed*/.*checkpoint*")
                if job.rule == CANCELED and not canceled and any(checkpoints):
                    subprocess.run(["scancel", str(job.number)], check=True)
                    canceled.append(job.number)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        finished = project.snakemake("--workflow-profile", str(PROFILE.parent), "--", TARGET)
    finally:
        is_over.set()
        watcher.join()
    output = finished.stdout + finished.stderr
    number = canceled[0] if canceled else None
    return Run(project, planned, output, finished.returncode, jobs, number)


def adapt_profile(path: Path) -> None:
    """Change what the small machine cannot give, and starve a rule of memory once."""
    profile = yaml.safe_load(path.read_text("utf-8"))
    profile["set-threads"]["finetune"] = 1
    asked = profile["set-resources"]
    asked["finetune"] |= {"gpu": 2, "processes": 1}  # four would sum in another order
    asked["extract_features"]["gpu"] = 1  # the demo asks for none
    asked[STARVED]["mem_mb"] = "400 if attempt == 1 else 4000"
    path.write_text(yaml.safe_dump(profile), "utf-8")


def list_jobs() -> list[Job]:
    form = "JobID:|,Comment:|,Partition:|,tres-per-job:|,State:"
    shown = subprocess.run(
        ["squeue", "--noheader", "--Format", form], check=True, capture_output=True, text=True
    )
    return [read_job(line) for line in shown.stdout.splitlines()]


def read_job(line: str) -> Job:
    number, comment, *others = (field.strip() for field in line.split("|"))
    return Job(int(number), comment.removeprefix("rule_").partition("_wildcards")[0], *others)


def test_all_rules_run_as_jobs_and_the_run_succeeds(run: Run) -> None:
    assert run.status == 0, run.output
    assert {job.rule for job in run.jobs.values()} == set(run.planned)


def test_the_metrics_are_those_of_a_run_on_this_machine(run: Run) -> None:
    ours = json.loads((run.project.folder / TARGET).read_text("utf-8"))
    local = json.loads((ROOT / TARGET).read_text("utf-8"))
    assert ours == local


def test_jobs_get_the_gpus_and_the_partition_of_their_rule(run: Run) -> None:
    places = {job.rule: (job.partition, job.gpus) for job in run.jobs.values()}
    assert places["finetune"] == ("gpu", "gres:gpu:2")
    assert places["extract_features"] == ("gpu", "gres:gpu:1")
    assert places["evaluate"] == ("cpu", "N/A")


def test_a_canceled_training_is_submitted_again(run: Run) -> None:
    assert run.canceled is not None
    trainings = [job for job in run.jobs.values() if job.rule == CANCELED]
    assert len(trainings) == run.planned[CANCELED] + 1


def test_a_job_that_ran_out_of_memory_gets_more(run: Run) -> None:
    starved = [job for job in run.jobs.values() if job.rule == STARVED]
    assert len(starved) == run.planned[STARVED] + 1
