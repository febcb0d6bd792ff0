"""The model card of a bundle: what it is, on what it was made, how good it is, how to use it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unic.inference.bundle import Bundle, Description

MAX_LISTED = 50  # clusters in the table of sizes
_TRAINED = {None: "", "last_block": ", with a last block trained here", "all": ", trained here"}
_QUALITY = {
    "silhouette": "silhouette by centroids: {:.3f} (-1 to 1, higher is better)",
    "disagreement": "disagreement of neighbors: {:.3f} (0 or more, lower is better)",
    "neighbor_agreement": "neighbors in the same cluster: {:.3f} (0 to 1, higher is better)",
}


def describe(bundle: Bundle, metrics: Mapping[str, Any], *, data: str) -> str:
    """Write the card of a bundle, in Markdown; it has no date, so equal runs have equal cards.

    Args:
        bundle: What is described.
        metrics: Of the experiment.
        data: Name of the data set.
    """
    said = bundle.description
    parts = [
        [f"# {said.experiment}: {said.n_clusters} clusters of images"],
        _say_what(bundle),
        ["## Data", "", *_say_data(metrics, data)],
        ["## Backbone", "", *_say_backbone(bundle)],
        ["## Quality", "", *_say_quality(bundle, metrics)],
        ["## Clusters of the training images", "", *_say_sizes(bundle)],
        ["## Use", "", *_say_use(said.experiment)],
        ["## Limits", "", *_say_limits(bundle)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _say_what(bundle: Bundle) -> list[str]:
    said = bundle.description
    return [
        f"A model of UNIC {said.version} that puts an image into one of {said.n_clusters} "
        f"clusters. {_say_how(said)} Clusters were found {_by_what(bundle)}."
    ]


def _say_how(said: Description) -> str:
    if said.head is None:
        return (
            "A frozen backbone embeds the image, linear heads cluster it, and their mean is "
            "averaged with what they say of its nearest training images."
        )
    kind = said.head["head"].replace("_", "-")
    backbone = {None: "A frozen backbone", "all": "A trained backbone"}.get(
        said.trained, "A backbone whose last block was trained"
    )
    return f"{backbone} embeds the image, and a trained head ({kind}) clusters it."


def _by_what(bundle: Bundle) -> str:
    labels = bundle.learned.known_labels
    n_labeled = int((labels >= 0).sum())
    if not n_labeled:
        return "without labels"
    n_classes = len(np.unique(labels[labels >= 0]))
    return f"with labels of {n_labeled:,} images, of {n_classes} classes"


def _say_data(metrics: Mapping[str, Any], data: str) -> list[str]:
    sizes = [f"{n:,} {split}" for split, n in metrics["n_images"].items()]
    lines = [f"- data set: {data}", f"- images: {', '.join(sizes)}; train alone was learned from"]
    if metrics["n_skipped"]:
        lines.append(f"- images left out, since they could not be read: {metrics['n_skipped']:,}")
    return lines


def _say_backbone(bundle: Bundle) -> list[str]:
    said = bundle.description
    view = said.view
    options = ", ".join(f"{key}={value}" for key, value in said.options.items()) or "none"
    return [
        f"- network: {said.backbone} of timm, options {options}",
        f"- weights: {said.weights}{_TRAINED[said.trained]}, {said.digests['weights']}",
        f"- license of the weights: {said.license or 'not known here; ask where they are from'}",
        f"- images: shorter side resized to {round(view.image_size / view.crop_pct)} px (bicubic), "
        f"central {view.image_size} px, mean {_list(view.mean)}, std {_list(view.std)}",
    ]


def _say_quality(bundle: Bundle, metrics: Mapping[str, Any]) -> list[str]:
    said, shown = bundle.description, metrics["shown"]
    lines = [
        f"Seeds {_list(metrics['seeds'])}; this is seed {said.seed}, {shown['why']}.",
        "",
        "Without true labels:",
        "",
        *(f"- {told.format(said.quality[k])}" for k, told in _QUALITY.items() if k in said.quality),
    ]
    if "is_balanced" in said.quality:
        sizes = "equal ones were preferred" if said.quality["is_balanced"] else "free"
        lines.append(f"- sizes of clusters: {sizes}")
    scores = list(_list_scores(metrics))
    if scores:
        n_seeds = len(metrics["seeds"])
        told = "mean over seeds" if n_seeds > 1 else "one seed"
        lines += ["", f"By true labels, {_say_seen(bundle)} ({told}):", ""]
        lines += ["| images | score | % |", "|---|---|---|", *scores]
    return lines


def _say_seen(bundle: Bundle) -> str:
    n_labeled = int((bundle.learned.known_labels >= 0).sum())
    return f"of which it has seen {n_labeled:,}" if n_labeled else "of which it has seen none"


def _list_scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    for split, scores in metrics["methods"]["unic"].items():
        for name, score in scores.items():
            if name != "used_clusters":
                yield f"| {split} | {name} | {100 * score['mean']:.1f} |"


def _say_sizes(bundle: Bundle) -> list[str]:
    sizes = np.bincount(bundle.learned.clusters, minlength=bundle.description.n_clusters)
    order = np.argsort(-sizes, kind="stable")
    lines = ["| cluster | class of labeled images | images |", "|---|---|---|"]
    for cluster in order[:MAX_LISTED].tolist():
        name = bundle.description.name_of(cluster).replace("|", "\\|")
        lines.append(f"| {cluster} | {name} | {sizes[cluster]:,} |")
    left = sizes[order[MAX_LISTED:]]
    if len(left):
        lines += ["", f"{len(left)} more have {left.min():,} to {left.max():,} images each."]
    return lines


def _say_use(experiment: str) -> list[str]:
    folder = f"results/{experiment}"
    return [
        "```sh",
        f"unic predict {folder} NEW...      # folders or files; a table to stdout",
        f"unic export {folder} --format onnx",
        "```",
        "",
        "```python",
        "import unic",
        "",
        f'predictor = unic.load("{folder}")',
        'found = predictor.predict("new_images")',
        "found.to_frame()",
        "```",
        "",
        "`model.safetensors` is all that is needed; images and weights may be gone.",
    ]


def _say_limits(bundle: Bundle) -> list[str]:
    return [
        "- Every image gets a cluster, also one unlike all training images: look at `is_outlier` "
        "and `outlier_score`, its distance to them (1 is typical of the training images).",
        "- Clusters are what the backbone tells apart; they need not be what people would name. "
        "Numbers of clusters have no meaning, and change with the seed.",
        "- Confidence is the model's own and not calibrated by labels.",
        f"- The file holds the ids of the {len(bundle.training_ids):,} training images and what "
        "became of them, from which something may be said about these images.",
    ]


def _list(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)
