"""The command ``unic``: look at what the workflow has made."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command line without the program's name, None = that of this process.

    Returns:
        Exit status: 0, or 2 after a wrong input.
    """
    parser = _make_parser()
    options = parser.parse_args(arguments)
    try:
        for folder in options.results:
            print(describe_results(folder))
    except (ValueError, OSError) as error:
        print(f"unic: error: {error}", file=sys.stderr)
        return 2
    return 0


def describe_results(folder: Path) -> str:
    """The scores of an experiment as a table, and where its report lies.

    Args:
        folder: ``results/NAME``.

    Raises:
        FileNotFoundError: If there is no finished experiment.
        ValueError: If its scores cannot be read.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} must be a finished experiment, {path} is missing; run: "
            f"snakemake --cores 8 {path}"
        )
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        lines = [f"\n{metrics['experiment']} ({metrics['task']}, {len(metrics['seeds'])} seeds)"]
        for split in metrics["methods"]["unic"]:
            lines.extend(_score_table(metrics["methods"], split))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} must hold the scores of an experiment: {error!r}") from None
    lines.append(f"  report: {(folder / 'report.html').resolve()}")
    return "\n".join(lines)


def _score_table(methods: dict[str, Any], split: str) -> list[str]:
    names = list(methods["unic"][split])
    lines = [f"  {split:<32}" + "".join(f"{name:>16}" for name in names)]
    for method, splits in methods.items():
        cells = [_cell(name, splits[split][name]) for name in names]
        lines.append(f"    {method:<30}" + "".join(f"{cell:>16}" for cell in cells))
    return lines


def _cell(name: str, score: dict[str, Any]) -> str:
    if name == "used_clusters":
        return f"{score['mean']:.1f}"
    return f"{100 * score['mean']:.2f} ± {100 * score['std']:.2f}"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("unic", description=__doc__)
    commands = parser.add_subparsers(required=True)
    show = commands.add_parser("show", help="print the scores of finished experiments")
    show.add_argument("results", type=Path, nargs="+", help="folders such as results/digits")
    return parser


if __name__ == "__main__":
    sys.exit(main())
