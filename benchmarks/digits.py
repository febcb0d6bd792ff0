"""The digits by the workflow on a GPU and on the CPU: the same configuration, metric by metric.

Both are whole runs in folders of their own below --output, so that none takes results of the other.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.devices import add_device, take_device
from unic.photos.project import find_snakefile
from unic.storage.files import read_json

Metrics = dict[str, tuple[float, float]]  # name to mean and standard deviation over seeds


def run_snakemake(folder: Path, device: str, *options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    entry = folder.resolve() / "device.yaml"
    entry.write_text(f"experiments:\n  digits:\n    machine:\n      device: {device}\n")
    config = find_snakefile().parent / "config"
    given = (config / "config.yaml", config / "experiments/digits.yaml")
    command = [
        *(sys.executable, "-m", "snakemake", "--nocolor", "--cores", "2", "--quiet", "rules"),
        *("--snakefile", str(find_snakefile()), "--directory", str(folder)),
        *(
            "--configfile",
            *map(str, (*given, entry)),
            *options,
            "--",
            "results/digits/metrics.json",
        ),
    ]
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout)
        raise SystemExit(1)


def flatten(metrics: Path) -> Metrics:
    methods = read_json(metrics)["methods"]
    return dict(_entries(methods))


def _entries(
    methods: dict[str, dict[str, dict[str, dict[str, float]]]],
) -> Iterator[tuple[str, tuple[float, float]]]:
    for method, splits in methods.items():
        for split, values in splits.items():
            for name, value in values.items():
                yield f"{method}, {split}, {name}", (value["mean"], value["std"])


def print_table(found: Metrics, expected: Metrics, device: str) -> None:
    print(f"| method, split, metric | cpu | {device} | difference, standard deviations |")
    print("|---|---|---|---|")
    for name, (mean, std) in expected.items():
        ours, ours_std = found[name]
        spread = max(std, ours_std)
        apart = (
            f"{abs(ours - mean) / spread:.1f}" if spread > 1e-6 else f"{ours - mean:+.4f} (std 0)"
        )
        print(f"| {name} | {mean:.4f} ± {std:.4f} | {ours:.4f} ± {ours_std:.4f} | {apart} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/gpu"))
    add_device(parser)
    arguments = parser.parse_args()
    folders = {device: arguments.output / f"digits_{device}" for device in ("cpu", "cuda")}
    run_snakemake(folders[arguments.device], arguments.device, "--dry-run")
    print(f"the workflow is planned with machine.device: {arguments.device}", flush=True)
    take_device(arguments.device)
    scores = {}
    for device in dict.fromkeys(("cpu", arguments.device)):
        run_snakemake(folders[device], device)
        scores[device] = flatten(folders[device] / "results/digits/metrics.json")
    print_table(scores[arguments.device], scores["cpu"], arguments.device)


if __name__ == "__main__":
    main()
