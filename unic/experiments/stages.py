"""Stages: what each depends on, who owns its result, and what its rule reads and is told."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from unic.experiments.keys import Settings, setting, unknown


class Stage(NamedTuple):
    """What a stage depends on: its own settings (dotted keys) and the stages before it."""

    settings: tuple[str, ...]
    after: tuple[str, ...] = ()


class Artifact(NamedTuple):
    """A file that a stage makes: its path in the folder of the experiment that owns it."""

    stage: str
    path: str


# Input of a rule to what a stage makes, or to given paths.
Files = dict[str, Artifact | str | list[str] | list[Artifact]]

AUTO = "auto"  # of a setting: decided where the number of images is known

# What images there are.
DATA = ("data.name", "data.root", "data.manifest", "data.bad_images", "data.imbalance_ratio")
VIEW = ("data.image_size", "data.crop_pct", "data.mean", "data.std")
NETWORK = ("backbone.name", "backbone.options")
POOL = ("negatives.pool", "negatives.labeled_share", "negatives.exclude_known_same_label")
KMEANS = ("kmeans.n_restarts", "n_clusters", "seeds")
PRETRAININGS = {"neighbors": "pretrain", "simgcd": "pretrain_simgcd"}  # method to its stage
METHODS = {  # method of an experiment to the module of the package whose `cluster` it is
    "consensus": "recipe/clustering.py",
    "hierarchical_kmeans": "baselines/hierarchical_kmeans.py",
    "icon": "baselines/icon.py",
    "scan": "baselines/scan.py",
    "spectral": "baselines/spectral.py",
    "spherical_kmeans": "baselines/spherical_kmeans.py",
    "temi": "baselines/temi.py",
    "turtle": "baselines/turtle.py",
    "umap_ward": "baselines/umap_ward.py",
    "ward": "baselines/ward.py",
}
STAGES = {
    "index_images": Stage((*DATA, "method", "n_clusters", "neighbors.far_rank")),
    "decode_images": Stage((*DATA, "data.decoded")),
    "split_labels": Stage(
        (*DATA, "data.label_file", "data.class_folders", "data.known_labels", "gcd")
    ),
    "pretrain": Stage((*DATA, *VIEW, *NETWORK, "pretraining.neighbors")),
    "pretrain_simgcd": Stage(
        (
            *(*VIEW, *NETWORK, "backbone.network", "n_clusters", "pretraining.simgcd"),
            *("views.n_views", "views.dtype", "views.precision"),  # augmentation is its own
        ),
        ("decode_images", "split_labels"),
    ),
    "extract_features": Stage((*VIEW, "backbone"), ("decode_images", *PRETRAININGS.values())),
    "mine_neighbors": Stage(("neighbors",), ("extract_features",)),
    "clean_neighbors": Stage(("cleaning",), ("mine_neighbors",)),  # known labels: for its log
    "index_negatives": Stage(
        ("negatives.n_negatives", *POOL, "negatives.seed"), ("mine_neighbors", "split_labels")
    ),
    "map_images": Stage((), ("mine_neighbors",)),
    "extract_tokens": Stage(
        (
            *(*VIEW, *NETWORK, "backbone.weights", "backbone.network"),
            *("pretraining.simgcd.start", "finetuning.head", "views"),
        ),
        ("decode_images", "pretrain"),  # not SimGCD, which leaves the trunk as it is
    ),
    "extract_views": Stage(("views",), ("extract_features",)),
    "finetune": Stage(
        ("finetuning", "views", "negatives.draw", "n_clusters"),
        ("clean_neighbors", "index_negatives", "split_labels"),
    ),
    "predict": Stage((), ("finetune",)),
    "estimate_n_clusters": Stage((), ("extract_features", "split_labels")),
    "fit_consensus": Stage(("n_clusters",), ("extract_features", "split_labels")),
    "extract_pixels": Stage((*DATA, *VIEW)),
    "cluster_pixels": Stage(KMEANS, ("extract_pixels",)),
    "cluster_features": Stage(KMEANS, ("extract_features",)),
    "cluster_finetuned": Stage(KMEANS, ("predict",)),
    "cluster_by": Stage(("n_clusters", "seeds"), ("mine_neighbors", "split_labels")),
    "predict_simgcd": Stage((), ("extract_features",)),
    "cluster_semi_supervised": Stage(KMEANS, ("extract_features", "split_labels")),
}

FEATURES = Artifact("extract_features", "features.zarr/zarr.json")
BACKBONES = {
    "pretrain": Artifact("pretrain", "backbone.safetensors"),
    "pretrain_simgcd": Artifact("pretrain_simgcd", "simgcd/backbone.safetensors"),
}


# Who owns what


def stage_settings(settings: Settings, stage: str) -> Settings:
    """Everything that a stage's result depends on, through all stages before it."""
    keys = {key: setting(settings, key) for key in STAGES[stage].settings}
    if stage == "index_images" and is_consensus(settings):
        del keys["n_clusters"]  # which is compared to the images later, see `checked_n_clusters`
    for earlier in STAGES[stage].after:
        if earlier not in PRETRAININGS.values() or earlier == pretraining_stage(settings):
            keys |= stage_settings(settings, earlier)
    return keys


def stage_owner(experiments: Mapping[str, Settings], name: str, stage: str) -> str:
    """The experiment whose folder holds a stage's result for an experiment.

    Experiments that agree in all that the stage depends on share one result; it belongs to the
    first of them: a base before those that start from it, else in the order of the configuration.

    Raises:
        ValueError: If there is no such experiment.
    """
    if name not in experiments:
        raise ValueError(unknown("experiment", name, experiments))
    wanted = _key(experiments[name], stage)
    return next(other for other in experiments if _key(experiments[other], stage) == wanted)


def stage_owners(experiments: Mapping[str, Settings], name: str) -> dict[str, str]:
    """The experiments whose folders hold the results of an experiment, stage by stage."""
    return {stage: stage_owner(experiments, name, stage) for stage in STAGES}


def place(decided: Any, experiments: Mapping[str, Settings], name: str) -> Any:
    """What was decided for an experiment, with the paths of its artifacts in place of these.

    Args:
        decided: An artifact, a list or a dict that may hold some, or what else a rule is told.
        experiments: All of them.
        name: Of the experiment.
    """
    if isinstance(decided, Artifact):
        return f"results/{stage_owner(experiments, name, decided.stage)}/{decided.path}"
    if isinstance(decided, dict):
        return {key: place(value, experiments, name) for key, value in decided.items()}
    if isinstance(decided, list):
        return [place(value, experiments, name) for value in decided]
    return decided


# Which case an experiment is


def pretraining_stage(settings: Settings) -> str | None:
    """The stage that trains the backbone before all else; None where its weights are given."""
    if settings["backbone"]["weights"] != "pretrain":
        return None
    return PRETRAININGS[settings["pretraining"]["method"]]


def is_frozen(settings: Settings) -> bool:
    """Whether features stay as they are: nothing of the backbone is trained."""
    return settings["finetuning"]["trainable"] is None and not reads_all_tokens(settings)


def reads_all_tokens(settings: Settings) -> bool:
    """Whether the head reads all tokens of the last block, and not the features."""
    return bool(settings["finetuning"]["head"] == "self_attention")


def is_consensus(settings: Settings) -> bool:
    """Whether images are clustered by the recipe without settings, and nothing is trained."""
    return bool(settings["method"] == "consensus")


def has_named_clusters(settings: Settings) -> bool:
    """Whether the first clusters are those of labeled classes: a random head knows no labels."""
    return is_consensus(settings) or bool(settings["finetuning"]["start"] == "consensus")


def has_cached_views(settings: Settings) -> bool:
    """Whether trainings draw from views that went through the trunk once."""
    return bool(settings["views"]["n_views"] != "fresh")


def is_shared_out(settings: Settings) -> bool:
    """Whether several jobs share a stage out."""
    return bool(settings["shards"] > 1)


def is_file(weights: str) -> bool:
    """Whether weights are a file that was given, and neither made here nor of a package."""
    return weights not in ("hub", "random", "pretrain") and not is_bundled(weights)


def is_bundled(weights: str) -> bool:
    """Whether weights come with the package."""
    return weights.startswith("bundled:")


# What a rule reads


def manifest_file(settings: Settings) -> Files:
    """The list of the images, where the data set is one."""
    return _given(manifest=settings["data"]["manifest"])


def label_file(settings: Settings) -> Files:
    """The file of true labels, where these are not class folders."""
    return _given(label_file=settings["data"]["label_file"])


def known_label_files(settings: Settings) -> Files:
    """The files of labels that training may know."""
    files = settings["data"]["known_labels"]
    return {"known_label_files": files} if files else {}


def n_clusters_file(settings: Settings) -> Files:
    """The estimate of the number of clusters, where it is not given."""
    if settings["n_clusters"] != AUTO:
        return {}
    return {"n_clusters": Artifact("estimate_n_clusters", "n_clusters.json")}


def decoded_files(settings: Settings) -> Files:
    """Decoded images, where they are read in place of the files."""
    if settings["data"]["decoded"] is None:
        return {}
    return {"decoded": Artifact("decode_images", "decoded.json")}


def weight_files(settings: Settings) -> Files:
    """The file of the backbone's weights, where it is one that is trained here or given."""
    stage = pretraining_stage(settings)
    if stage is not None:
        return {"backbone": BACKBONES[stage]}
    return _weights(settings["backbone"]["weights"])


def trunk_files(settings: Settings) -> Files:
    """The file of weights whose trunk is the backbone's: SimGCD leaves it as it was."""
    if pretraining_stage(settings) == "pretrain_simgcd":
        return start_files(settings)
    return weight_files(settings)


def start_files(settings: Settings) -> Files:
    """The file of the weights that SimGCD starts from, where it is one."""
    return _weights(settings["pretraining"]["simgcd"]["start"])


def token_files(settings: Settings) -> Files:
    """Cached views of the images, where a training draws from these."""
    if not has_cached_views(settings):
        return {}
    return {"tokens": Artifact("extract_tokens", "tokens.json")}


def view_files(settings: Settings) -> Files:
    """What finetuning has of cached views: features of a frozen backbone, or tokens.

    Without augmentation all views of an image are the one that was mined.
    """
    if not is_frozen(settings):
        return token_files(settings)
    if settings["views"]["augmentation"] is None:
        return {"frozen": FEATURES}
    if not has_cached_views(settings):
        return {}
    return {"tokens": Artifact("extract_views", "views.json")}


def negative_files(settings: Settings) -> Files:
    """What finetuning takes negatives from: a set drawn once, or all far images."""
    if settings["negatives"]["draw"] == "once":
        return {"negatives": Artifact("index_negatives", "negatives.zarr/zarr.json")}
    neighbors = Artifact("mine_neighbors", "neighbors.zarr/zarr.json")
    return {"features": FEATURES, "neighbors": neighbors}


def norm_files(settings: Settings) -> Files:
    """The features whose statistics a head centers or standardizes what it reads by."""
    is_fitted = settings["finetuning"]["head_norm"] in ("center", "standardize")
    return {"features": FEATURES} if is_fitted else {}


def start_clusters(settings: Settings, seed: str) -> Files:
    """The clusters that heads start from, where these are not random, and their features."""
    if settings["finetuning"]["start"] == "random":
        return {}
    table = Artifact("fit_consensus", f"seed{seed}/consensus.parquet")
    return {"start": table, "features": FEATURES}


def frozen_features(settings: Settings) -> Files:
    """Features that need not be computed again to predict."""
    return {"features": FEATURES} if is_frozen(settings) else {}


def clustered_features(settings: Settings, source: str) -> list[Artifact]:
    """What a k-means baseline clusters: one store for all seeds, or one a seed.

    Args:
        settings: Of the experiment.
        source: ``features``, ``pixels`` or ``finetuned``.
    """
    if source == "finetuned":
        return _of_seeds(settings, "predict", "features.zarr/zarr.json")
    if source == "pixels":
        return [Artifact("extract_pixels", "pixels.zarr/zarr.json")]
    return [FEATURES]


def histories(settings: Settings) -> list[Artifact]:
    """The losses of the training of every seed."""
    if is_consensus(settings):
        return _of_seeds(settings, "fit_consensus", "consensus.csv")
    return _of_seeds(settings, "finetune", "history.csv")


def predictions(settings: Settings) -> list[Artifact]:
    """The clusters that UNIC predicts, of every seed."""
    if is_consensus(settings):
        return _of_seeds(settings, "fit_consensus", "consensus.parquet")
    return _of_seeds(settings, "predict", "predictions.parquet")


def learned_files(settings: Settings) -> Files:
    """What was learned with every seed, of which one is packed; by a training also of what."""
    if is_consensus(settings):
        return {"models": _of_seeds(settings, "fit_consensus", "consensus.safetensors")}
    return {
        "models": _of_seeds(settings, "finetune", "model.safetensors"),
        "features": _of_seeds(settings, "predict", "features.zarr/zarr.json"),
        "predictions": predictions(settings),
    }


def all_predictions(settings: Settings) -> list[Artifact]:
    """Predictions of every seed and of every baseline of an experiment."""
    is_trained = not is_consensus(settings)
    has_source = {
        "features": is_trained,
        "finetuned": is_trained and not is_frozen(settings),
        "pixels": settings["kmeans"]["pixels"],
    }
    baselines = {
        f"cluster_{source}": f"kmeans_{source}" for source, is_run in has_source.items() if is_run
    }
    if pretraining_stage(settings) == "pretrain_simgcd":
        baselines["predict_simgcd"] = "simgcd"
    if is_trained and (settings["gcd"] is not None or settings["data"]["known_labels"]):
        baselines["cluster_semi_supervised"] = "semi_supervised_kmeans_features"
    own = predictions(settings)
    found = list(baselines.items())
    found += [("cluster_by", method) for method in settings["methods"]]
    return own + [Artifact(stage, f"baselines/{method}.parquet") for stage, method in found]


def method_times(settings: Settings) -> list[Artifact]:
    """What the methods of an experiment took."""
    return [Artifact("cluster_by", f"baselines/{method}.csv") for method in settings["methods"]]


def experiments_of_table(table: Mapping[str, Any]) -> list[str]:
    """The experiments whose numbers a table of the paper holds, each once."""
    names = [row["experiment"] for row in table["rows"] if "experiment" in row]
    return list(dict.fromkeys(names))


def experiments_of_figure(figure: Mapping[str, Any]) -> list[str]:
    """The experiments that a figure of several draws, each once."""
    found = [names for lines in figure["panels"].values() for names in lines.values()]
    names = [[name] if isinstance(name, str) else name for name in found]
    return list(dict.fromkeys(name for several in names for name in several))


def progress_files(settings: Settings, name: str) -> list[str]:
    """The scores of the snapshots of an experiment, of every seed.

    Args:
        settings: Of the experiment.
        name: Of the experiment, in whose folder they lie.

    Raises:
        ValueError: If it keeps no snapshots.
    """
    if is_consensus(settings) or settings["finetuning"]["snapshot_every"] is None:
        raise ValueError(
            f"{name} must keep snapshots to be drawn over epochs: set finetuning.snapshot_every"
        )
    return [f"results/{name}/seed{seed}/progress.csv" for seed in settings["seeds"]]


def has_labels(settings: Settings) -> bool:
    """Whether every image surely has a true label; folders and lists of images may have none."""
    data = settings["data"]
    return data["name"] not in ("folder", "manifest") or data["label_file"] is not None


def seeds_for_classes(settings: Settings) -> list[int]:
    """The seeds of clusters that take the place of classes, where there may be none."""
    return [] if has_labels(settings) else list(settings["seeds"])


def paper_figures(settings: Settings) -> list[str]:
    """The figures of the paper that show one experiment: GCD has examples of its own."""
    examples = ["12"] if settings["gcd"] is None else ["14", "15"]
    return sorted(["4", "8", "9", "10", "13", *examples], key=int)


# What a rule is told


def checked_n_clusters(settings: Settings) -> int | None:
    """The number of clusters that the listing checks; the recipe does so itself."""
    return None if is_consensus(settings) else settings["n_clusters"]


def image_source(settings: Settings) -> Settings:
    """Where images are, and how they are prepared for the backbone."""
    return _some(settings["data"], "name", "root") | {"view": view(settings)}


def view(settings: Settings) -> Settings:
    """How images are prepared for the backbone."""
    return _some(settings["data"], "image_size", "crop_pct", "mean", "std")


def method_module(settings: Settings, method: str) -> str:  # noqa: ARG001 - of all experiments
    """The module whose ``cluster`` is a method, by its dotted name."""
    return "unic." + METHODS[method].removesuffix(".py").replace("/", ".")


def network(settings: Settings) -> str:
    """Which network of the backbone's weights: a file that is trained here has one."""
    is_given = pretraining_stage(settings) is None
    return str(settings["backbone"]["network"]) if is_given else "auto"


def trunk_weights(settings: Settings) -> str:
    """The weights whose trunk is the backbone's."""
    if pretraining_stage(settings) == "pretrain_simgcd":
        return str(settings["pretraining"]["simgcd"]["start"])
    return str(settings["backbone"]["weights"])


def negative_pool(settings: Settings) -> Settings:
    """Which images are negatives of which."""
    return _some(settings["negatives"], "pool", "labeled_share", "exclude_known_same_label")


def model(settings: Settings) -> Settings:
    """What a model is rebuilt from."""
    return {
        **_some(settings["backbone"], "name", "options"),
        "image_size": settings["data"]["image_size"],
        "n_clusters": settings["n_clusters"],
        **_some(settings["finetuning"], "head", "head_norm", "head_width"),
    }


def finetuning(settings: Settings) -> Settings:
    """The settings of the finetuning itself."""
    elsewhere = ("head", "head_norm", "head_width", "n_heads", "snapshot_every", "start")
    return _others(settings["finetuning"], *elsewhere)


def simgcd(settings: Settings) -> Settings:
    """The settings of SimGCD itself."""
    return _others(settings["pretraining"]["simgcd"], "start", "augmentation")


# What a rule takes of the machine


def index_threads(settings: Settings) -> int:
    """Threads that list the images: one, but where each of them is decoded."""
    is_decoding = settings["data"]["bad_images"] == "skip"
    return int(settings["machine"]["threads"]) if is_decoding else 1


def gpus(settings: Settings) -> int:
    """How many GPUs a heavy job asks for; jobs on the CPU need not wait for one."""
    return 0 if settings["machine"]["device"] == "cpu" else 1


def joining_gpus(settings: Settings) -> int:
    """GPUs of a stage that may be shared out: putting parts together takes none."""
    return 0 if is_shared_out(settings) else gpus(settings)


def training_gpus(settings: Settings) -> int:
    """How many GPUs the training asks for, one a process."""
    return gpus(settings) * int(settings["machine"]["processes"])


def _key(settings: Settings, stage: str) -> str:
    return json.dumps(stage_settings(settings, stage), sort_keys=True)


def _given(**paths: str | None) -> Files:
    return {name: path for name, path in paths.items() if path is not None}


def _weights(weights: str) -> Files:
    return {"backbone": weights} if is_file(weights) else {}


def _of_seeds(settings: Settings, stage: str, name: str) -> list[Artifact]:
    return [Artifact(stage, f"seed{seed}/{name}") for seed in settings["seeds"]]


def _some(section: Settings, *keys: str) -> Settings:
    return {key: section[key] for key in keys}


def _others(section: Settings, *elsewhere: str) -> Settings:
    return {key: section[key] for key in section if key not in elsewhere}
