"""Our results beside the paper's: a table of it, collected from the metrics of experiments."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from unic.evaluation.formatting import format_spread

FACTS = ("clean_fraction", "neighbor_purity", "reciprocity")  # of the neighbors, without seeds


class Row(NamedTuple):
    """A row of a table: what the paper says and which of our experiments stands beside it."""

    name: str
    experiment: str | None = None  # None: a number of the paper that nothing here gives
    method: str = "unic"
    paper: Mapping[str, float] = {}  # heading to percent


class Found(NamedTuple):
    """What an experiment found, in [0, 1]."""

    mean: float = float("nan")
    std: float = float("nan")
    n_seeds: int = 0


class Table(NamedTuple):
    """A table of the paper."""

    title: str
    columns: Mapping[str, str]  # heading to the name of a score or a fact of the neighbors
    rows: Sequence[Row]
    note: str = ""


def read_table(settings: Mapping[str, Any]) -> Table:
    """Take a table as the configuration has it, checked against its schema."""
    rows = [Row(**row) for row in settings["rows"]]
    return Table(settings["title"], settings["columns"], rows, settings.get("note", ""))


def compare(table: Table, metrics: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Put our numbers beside the paper's.

    The split is the protocol's: unlabeled training images for GCD, else the test images where
    there are some.

    Args:
        table: What to compare.
        metrics: Experiment to its ``metrics.json``.

    Returns:
        Row by row and heading by heading: ``row``, ``column``, ``mean``, ``std`` and ``paper`` in
        percent, ``difference`` of mean and paper, ``n_seeds`` and ``experiment``. NaN where there
        is no number.

    Raises:
        ValueError: If an experiment lacks the method or the score; names them.
    """
    records = []
    for row in table.rows:
        for heading, score in table.columns.items():
            found = Found()
            if row.experiment is not None and score in FACTS:
                found = _find_fact(score, metrics[row.experiment])
            elif row.experiment is not None:
                found = find_score(row.experiment, row.method, score, metrics[row.experiment])
            paper = float(row.paper.get(heading, float("nan")))
            records.append(
                {
                    "row": row.name,
                    "column": heading,
                    "mean": 100 * found.mean,
                    "std": 100 * found.std,
                    "paper": paper,
                    "difference": 100 * found.mean - paper,
                    "n_seeds": found.n_seeds,
                    "experiment": row.experiment or "",
                }
            )
    return pd.DataFrame(records)


def find_score(experiment: str, method: str, score: str, metrics: Mapping[str, Any]) -> Found:
    """Find the score of a method on the split of the protocol.

    That is unlabeled training images for GCD, else the test images where there are some.

    Args:
        experiment: Name of the experiment.
        method: A method of its ``metrics.json``.
        score: Name of a score.
        metrics: Content of ``metrics.json``.

    Raises:
        ValueError: If there is no such method or score; names those that there are.
    """
    methods = metrics["methods"]
    if method not in methods:
        raise ValueError(f"{experiment} must have method {method}, it has {', '.join(methods)}")
    splits = methods[method]
    split = next(name for name in ("unlabeled", "test", "train") if name in splits)
    if score not in splits[split]:
        raise ValueError(
            f"{experiment} must have score {score} of its {split} images, it has "
            f"{', '.join(splits[split])}"
        )
    found = splits[split][score]
    return Found(found["mean"], found["std"], len(found["values"]))


def format_markdown(table: Table, compared: pd.DataFrame) -> str:
    """The comparison in Markdown: ours with its standard deviation, the paper's in parentheses."""
    headings = list(table.columns)
    lines = [f"# {table.title}", ""]
    lines += [f"| | {' | '.join(headings)} | experiment |", "|---" * (len(headings) + 2) + "|"]
    cells = compared.groupby("row", sort=False)
    for row in table.rows:
        of_row = cells.get_group(row.name).set_index("column")
        shown = [_cell(of_row.loc[heading]) for heading in headings]
        lines.append(f"| {row.name} | {' | '.join(shown)} | {row.experiment or '-'} |")
    seeds = sorted({int(n) for n in compared["n_seeds"] if n})
    about = "Percent; mean ± standard deviation over "
    about += f"{' or '.join(map(str, seeds)) or 'no'} seeds, the paper's number in parentheses."
    return "\n".join([*lines, "", about, *(["", table.note] if table.note else [])]) + "\n"


def _find_fact(name: str, metrics: Mapping[str, Any]) -> Found:
    fact = metrics["neighbors"][name]
    return Found() if fact is None else Found(fact)


def _cell(cell: "pd.Series[Any]") -> str:
    ours = ""
    if not pd.isna(cell["mean"]):
        ours = format_spread(cell["mean"], cell["std"], n_seeds=cell["n_seeds"])
    paper = "" if pd.isna(cell["paper"]) else f"({cell['paper']:.2f})"
    return " ".join(part for part in (ours, paper) if part) or "-"
