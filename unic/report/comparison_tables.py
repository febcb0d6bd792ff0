"""Methods beside each other on several data sets: scores, their means, and what they cost."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from unic.evaluation.formatting import METHOD_NAMES, METRIC_NAMES, MISSING, format_spread
from unic.report.paper_tables import find_score


class Comparison(NamedTuple):
    """What is compared."""

    title: str
    experiments: Mapping[str, str]  # heading to experiment
    methods: Sequence[str]
    scores: Sequence[str] = ("acc",)
    note: str = ""


def read_times(files: Mapping[str, Sequence[str | Path]]) -> pd.DataFrame:
    """Read what methods took.

    Args:
        files: Experiment to the files of its methods.

    Returns:
        Columns ``experiment``, ``method``, ``seed`` and ``processor_s``.
    """
    tables = [
        pd.read_csv(path).assign(experiment=name) for name, paths in files.items() for path in paths
    ]
    empty = pd.DataFrame(columns=["experiment", "method", "seed", "processor_s"])
    return pd.concat(tables, ignore_index=True) if tables else empty


def collect_scores(
    comparison: Comparison, metrics: Mapping[str, Mapping[str, Any]], times: pd.DataFrame
) -> pd.DataFrame:
    """Collect the scores of every method on every data set.

    The split is the protocol's, see :func:`unic.report.paper_tables.find_score`.

    Args:
        comparison: What to compare.
        metrics: Experiment to its ``metrics.json``.
        times: Columns ``experiment``, ``method``, ``seed`` and ``processor_s``, of the methods
            whose time is known.

    Returns:
        Score by score, method by method and heading by heading: ``score``, ``method``, ``data``,
        ``mean`` and ``std`` in percent, ``n_seeds``, and ``processor_s``, the mean of a seed;
        NaN where there is none.

    Raises:
        ValueError: If no experiment has a method, or one that has it lacks a score.
    """
    for method in comparison.methods:
        if not any(method in metrics[name]["methods"] for name in comparison.experiments.values()):
            raise ValueError(
                f"{comparison.title}: an experiment must have method {method}, none of "
                f"{', '.join(comparison.experiments.values())} has"
            )
    records: list[dict[str, Any]] = []
    cells = product(comparison.scores, comparison.methods, comparison.experiments.items())
    for score, method, (heading, experiment) in cells:
        if method in metrics[experiment]["methods"]:
            found = find_score(experiment, method, score, metrics[experiment])
            took = times[(times["experiment"] == experiment) & (times["method"] == method)]
            records.append(
                {
                    "score": score,
                    "method": method,
                    "data": heading,
                    "mean": 100 * found.mean,
                    "std": 100 * found.std,
                    "n_seeds": found.n_seeds,
                    "processor_s": took["processor_s"].mean(),
                }
            )
    return pd.DataFrame(records)


def format_comparison(comparison: Comparison, scores: pd.DataFrame) -> str:
    """The comparison in Markdown: data sets, their mean, and mean processor seconds a seed.

    A table for each score. A method has a mean where it has a score on every data set.
    """
    headings = list(comparison.experiments)
    columns = [*headings, "mean", "processor s a seed"]
    lines = [f"# {comparison.title}", ""]
    for score in comparison.scores:
        lines += [f"| {METRIC_NAMES.get(score, score)} | {' | '.join(columns)} |"]
        lines += ["|---" * (len(columns) + 1) + "|"]
        of_score = scores[scores["score"] == score]
        for method in comparison.methods:
            rows = of_score[of_score["method"] == method].set_index("data")
            cells = [_format_cell(rows, heading) for heading in headings]
            is_whole = set(headings) <= set(rows.index)
            cells.append(f"{rows['mean'].mean():.2f}" if is_whole else MISSING)
            known = rows["processor_s"].dropna()
            cells.append(f"{known.mean():.1f}" if len(known) else MISSING)
            lines.append(f"| {METHOD_NAMES.get(method, method)} | {' | '.join(cells)} |")
        lines.append("")
    seeds = " or ".join(map(str, sorted(set(scores["n_seeds"]))))
    lines.append(f"Percent; mean ± standard deviation over {seeds} seeds.")
    lines += [*(["", comparison.note] if comparison.note else []), ""]
    return "\n".join(lines)


def _format_cell(rows: pd.DataFrame, heading: str) -> str:
    if heading not in rows.index:
        return MISSING
    row = rows.loc[heading]
    return format_spread(row["mean"], row["std"], n_seeds=int(row["n_seeds"]))
