"""The summary of an experiment, metrics.json, and the predictions that its report shows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import unic
from unic.evaluation.formatting import format_percent
from unic.evaluation.scores import Scores, Truth
from unic.images.index import Skipped
from unic.storage.stores import Store

_N_NAMED = 10  # skipped images that are named; the index has all
RUN_ONCE = ("simgcd",)  # its seed is that of the pretraining, whatever the seeds of the experiment
LOSSES = {  # what the loss of a method is, by which a seed is chosen where nobody knows labels
    "finetuning": "loss in the last epoch",
    "consensus": "loss of its clusters (neighbors that disagree, and lack of compactness)",
}
HEADLINES = {"acc": "accuracy", "all": "All accuracy"}  # of clustering, of GCD


class Choice(NamedTuple):
    """The seed that a report shows, and why: ``shown`` of metrics.json."""

    seed: int
    split: str  # test, train, or unlabeled for GCD
    by: str  # a key of HEADLINES, or loss
    value: float  # of the seed
    why: str  # as the report says it


class Shown(NamedTuple):
    """The predictions that a report shows: one seed, one split."""

    predictions: pd.DataFrame
    labels: NDArray[np.int64] | None
    class_names: list[str] | None
    seed: int
    split: str


def summarize(
    scores: Mapping[str, Scores],
    truth: Truth,
    positives: Store,
    history: pd.DataFrame,
    *,
    experiment: str,
    method: str = "finetuning",
    n_clusters: int,
    seeds: Sequence[int],
    stage_owners: Mapping[str, str],
    skipped: Sequence[Skipped] = (),
) -> dict[str, Any]:
    """Gather what an experiment found: mean, std and values over seeds of every method.

    Args:
        scores: Method to seed to split to name to value.
        truth: Truth about the images.
        positives: Store of cleaned neighbors.
        history: A row per seed and epoch, with the columns ``seed``, ``epoch`` and ``loss``.
        experiment: Name of the experiment.
        method: What clustered the images, a key of :data:`LOSSES`.
        n_clusters: K.
        seeds: The seeds, in the order of the values.
        stage_owners: Stage to the experiment whose folder holds its result.
        skipped: Images that could not be decoded and were left out.
    """
    mined, cleaned = positives.parameters("neighbors"), positives.parameters("positives")
    return {
        "experiment": experiment,
        "method": method,
        "task": "gcd" if truth.is_gcd else "clustering",
        "version": unic.__version__,
        "n_images": {split: len(ids) for split, ids in truth.image_ids.items()},
        "n_skipped": len(skipped),
        "skipped": [image._asdict() for image in skipped[:_N_NAMED]],
        "n_clusters": n_clusters,
        "n_classes": len(truth.class_names) or None,
        "n_labeled": int(truth.is_labeled.sum()),
        "seeds": list(seeds),
        "methods": {m: summarize_seeds(s, _seeds_of(m, s, seeds)) for m, s in scores.items()},
        "shown": choose_seed(
            scores["unic"],
            history,
            seeds=seeds,
            split=find_scored_split(truth),
            loss_name=LOSSES[method],
        )._asdict(),
        "neighbors": {
            "n_neighbors": mined["n_neighbors"],
            "far_rank": mined["far_rank"],
            "engine": mined["mining"]["engine"],
            "recall": mined["mining"]["recall"],
            "far_share": far_share(mined["mining"]),
            "max_union_size": cleaned["max_union_size"],
            "quantile": cleaned["quantile"],
            "clean_fraction": float(positives.read("is_clean").mean()),
            "reciprocity": float(positives.read("reciprocity").mean(dtype=float)),
            "neighbor_purity": _neighbor_purity(positives, truth),
        },
        "stage_owners": dict(stage_owners),
    }


def far_share(mining: Mapping[str, Any]) -> float:
    """Share of the far sets that a bound of the far radius leaves, measured on some rows.

    Args:
        mining: What a store of neighbors keeps of how the pass went; 1 where the radius is exact.

    Example:
        >>> far_share({"far_kept": 9, "far_sampled": 12}), far_share({})
        (0.75, 1.0)
    """
    sampled = mining.get("far_sampled", 0)
    return mining["far_kept"] / sampled if sampled else 1.0


def summarize_seeds(scores: Scores, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (``n - 1``; 0 of a single seed) and values over seeds.

    Args:
        scores: Seed to split to name to value.
        seeds: Which seeds, in which order.

    Returns:
        Split to name to ``mean``, ``std`` and ``values``.

    Example:
        >>> scores = {"0": {"test": {"acc": 0.5}}, "1": {"test": {"acc": 0.5}}}
        >>> summarize_seeds(scores, [0, 1])
        {'test': {'acc': {'mean': 0.5, 'std': 0.0, 'values': [0.5, 0.5]}}}
    """
    each = [scores[str(seed)] for seed in seeds]
    return {
        split: {name: _mean_and_std([of_seed[split][name] for of_seed in each]) for name in names}
        for split, names in each[0].items()
    }


def choose_seed(
    scores: Scores,
    history: pd.DataFrame,
    *,
    seeds: Sequence[int],
    split: str,
    loss_name: str = LOSSES["finetuning"],
) -> Choice:
    """Choose the seed that stands for the others: the median one.

    The median of the accuracy, for GCD of All; where no seed has one, that of the loss of the kept
    head in the last epoch. Of two middle values the lower one is taken, of equal seeds the lower
    number. Seeds without a value are left out.

    Args:
        scores: Seed to split to name to value.
        history: A row per seed and epoch, with the columns ``seed``, ``epoch`` and ``loss``.
        seeds: Those to choose from, at least one; their order changes nothing.
        split: Whose accuracy counts.
        loss_name: What the loss is called.

    Raises:
        ValueError: If no seed has an accuracy or a loss.

    Example:
        >>> scores = {str(seed): {"test": {"acc": acc}} for seed, acc in enumerate([0.7, 0.9, 0.8])}
        >>> choice = choose_seed(scores, pd.DataFrame(), seeds=[0, 1, 2], split="test")
        >>> choice.seed, choice.why
        (2, 'the median of 3 seeds by accuracy on the test images, 80.0%')
    """
    for by, name in HEADLINES.items():
        values = {seed: scores[str(seed)].get(split, {}).get(by) for seed in seeds}
        found = _drop_missing(values)
        if found:
            seed = _find_median(found)
            told = f"{name} on the {split} images, {format_percent(found[seed])}"
            return Choice(seed, split, by, found[seed], _explain(len(found), told))
    last = history.sort_values("epoch").groupby("seed")["loss"].last().to_dict()
    found = _drop_missing({seed: last.get(seed) for seed in seeds})
    if not found:
        raise ValueError(f"one of the seeds {sorted(seeds)} must have a loss, none has one")
    seed = _find_median(found)
    told = f"{loss_name}, {found[seed]:.4g}, since true labels are not known"
    return Choice(seed, split, "loss", found[seed], _explain(len(found), told))


def find_scored_split(truth: Truth) -> str:
    """Name the images that the protocol scores: unlabeled for GCD, else test, else train."""
    if truth.is_gcd:
        return "unlabeled"
    return "test" if "test" in truth.image_ids else "train"


def choose_shown(predictions: pd.DataFrame, truth: Truth) -> Shown:
    """Take the images that the protocol scores, see :func:`find_scored_split`."""
    scored = find_scored_split(truth)
    split = "train" if truth.is_gcd else scored
    rows = predictions[predictions["split"] == split].reset_index(drop=True)
    labels = None if truth.labels is None else truth.labels[split]
    if truth.is_gcd:
        rows = rows[~truth.is_labeled].reset_index(drop=True)
        labels = labels[~truth.is_labeled] if labels is not None else None
    return Shown(
        predictions=rows,
        labels=labels,
        class_names=truth.class_names or None,
        seed=int(predictions["seed"].iloc[0]),
        split=scored,
    )


def _neighbor_purity(positives: Store, truth: Truth) -> float | None:
    """Share of the kept neighbors, the images themselves not counted, of the image's class."""
    if truth.labels is None:
        return None
    kept = positives.read("indices")[positives.read("is_clean")]  # (c, k), itself first
    if kept.shape[1] < 2 or not len(kept):
        return None
    labels = truth.labels["train"]
    return float((labels[kept[:, 1:]] == labels[kept[:, :1]]).mean())


def _seeds_of(method: str, scores: Scores, seeds: Sequence[int]) -> Sequence[int]:
    """The seeds of the experiment, or the one of a method that runs once."""
    return [int(seed) for seed in scores] if method in RUN_ONCE else seeds


def _mean_and_std(values: Sequence[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std, "values": list(values)}


def _drop_missing(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: float(v) for seed, v in values.items() if v is not None and not math.isnan(v)}


def _find_median(values: Mapping[int, float]) -> int:
    """The lowest seed of the median value, of the lower one of two."""
    median = sorted(values.values())[(len(values) - 1) // 2]
    return min(seed for seed, value in values.items() if value == median)


def _explain(n_seeds: int, told: str) -> str:
    if n_seeds == 1:
        return f"the only seed, by {told}"
    middle = "the median" if n_seeds % 2 else "the lower of the two middle ones"
    return f"{middle} of {n_seeds} seeds by {told}"
