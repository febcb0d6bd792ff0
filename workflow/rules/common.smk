"""Settings, shared artifacts and code digests, as input and parameter functions of the rules."""

from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from unic.experiments import (
    pretraining_stage,
    resolve_experiments,
    setting,
    stage_owner,
    stage_owners,
)
from unic.storage.digests import bundled_digest, code_digest, file_digest

SCRIPTS = Path(workflow.basedir, "workflow", "scripts")
SCHEMA = Path(workflow.basedir, "workflow", "schemas", "config.schema.yaml")
PRETRAINED = {
    "pretrain": "backbone.safetensors",
    "pretrain_simgcd": "simgcd/backbone.safetensors",
}

try:
    EXPERIMENTS = resolve_experiments(config, yaml.safe_load(SCHEMA.read_text()))
except ValueError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    experiment="[A-Za-z0-9][A-Za-z0-9_-]*",
    seed="[0-9]+",
    shard="[0-9]+",
    n_shards="[0-9]+",
    source="features|pixels|finetuned",
    table="[A-Za-z0-9][A-Za-z0-9_-]*",


def settings_of(wildcards):
    """All settings of the experiment of a job."""
    if wildcards.experiment not in EXPERIMENTS:
        known = ", ".join(EXPERIMENTS)
        raise WorkflowError(
            f"unknown experiment {wildcards.experiment}, known are {known}"
        )
    return EXPERIMENTS[wildcards.experiment]


def value(key):
    """The value of a setting, by its dotted key."""

    def resolve(wildcards):
        return setting(settings_of(wildcards), key)

    return resolve


def view(wildcards):
    """How images are prepared for the backbone."""
    data = settings_of(wildcards)["data"]
    return {key: data[key] for key in ("image_size", "crop_pct", "mean", "std")}


def index_threads(wildcards):
    """Threads that list the images: one, but where each of them is decoded."""
    settings = settings_of(wildcards)
    is_decoding = settings["data"]["bad_images"] == "skip"
    return settings["machine"]["threads"] if is_decoding else 1


def manifest_file(wildcards):
    """The list of the images, where the data set is one."""
    manifest = settings_of(wildcards)["data"]["manifest"]
    return {} if manifest is None else {"manifest": manifest}


def label_file(wildcards):
    """The file of true labels, where these are not class folders."""
    labels = settings_of(wildcards)["data"]["label_file"]
    return {} if labels is None else {"label_file": labels}


def weight_files(wildcards):
    """The file of the backbone's weights, where it is one that is trained here or given."""
    settings = settings_of(wildcards)
    stage = pretraining_stage(settings)
    if stage is None:
        return given_files(settings["backbone"]["weights"])
    return {"backbone": artifact(stage, PRETRAINED[stage])(wildcards)}


def trunk_files(wildcards):
    """The file of weights whose trunk is the backbone's: SimGCD leaves it as it was."""
    settings = settings_of(wildcards)
    if pretraining_stage(settings) == "pretrain_simgcd":
        return given_files(settings["pretraining"]["simgcd"]["start"])
    return weight_files(wildcards)


def start_files(wildcards):
    """The file of the weights that SimGCD starts from, where it is one."""
    return given_files(settings_of(wildcards)["pretraining"]["simgcd"]["start"])


def given_files(weights):
    """The file of given weights, where they are one that may change."""
    is_file = weights not in ("hub", "random") and not weights.startswith("bundled:")
    return {"backbone": weights} if is_file else {}


def network(wildcards):
    """Which network of the backbone's weights: a file that is trained here has one."""
    settings = settings_of(wildcards)
    is_given = pretraining_stage(settings) is None
    return settings["backbone"]["network"] if is_given else "auto"


def trunk_weights(wildcards):
    """The weights whose trunk is the backbone's."""
    settings = settings_of(wildcards)
    if pretraining_stage(settings) == "pretrain_simgcd":
        return settings["pretraining"]["simgcd"]["start"]
    return settings["backbone"]["weights"]


def parts(path, rows=None):
    """What a stage puts together, where several jobs share it out.

    With ``rows`` the parts have a second file each, which is then kept as long.
    """

    def resolve(wildcards):
        count = settings_of(wildcards)["shards"]
        if count == 1:
            return {}
        shards = dict(shard=range(count), n_shards=count, **wildcards)
        files = {"parts": expand(path, **shards)}
        return files if rows is None else files | {"rows": expand(rows, **shards)}

    return resolve


def joining_gpus(wildcards):
    """GPUs of a stage that may be shared out: putting parts together takes none."""
    is_joining = settings_of(wildcards)["shards"] > 1
    return 0 if is_joining else gpus(wildcards)


def negative_files(wildcards):
    """What finetuning takes negatives from: a set drawn once, or all far images."""
    if value("negatives.draw")(wildcards) == "once":
        negatives = artifact("index_negatives", "negatives.zarr/zarr.json")
        return {"negatives": negatives(wildcards)}
    return {
        "features": artifact("extract_features", "features.zarr/zarr.json")(wildcards),
        "neighbors": artifact("mine_neighbors", "neighbors.zarr/zarr.json")(wildcards),
    }


def norm_files(wildcards):
    """The features whose statistics a head centers or standardizes what it reads by."""
    if value("finetuning.head_norm")(wildcards) not in ("center", "standardize"):
        return {}
    features = artifact("extract_features", "features.zarr/zarr.json")
    return {"features": features(wildcards)}


def negative_pool(wildcards):
    """Which images are negatives of which."""
    negatives = settings_of(wildcards)["negatives"]
    keys = ("pool", "labeled_share", "exclude_known_same_label")
    return {key: negatives[key] for key in keys}


def weights_digest(weights_of):
    """Digest of the content of given weights: a file, or one that comes with the package."""

    def resolve(wildcards):
        weights = weights_of(wildcards)
        if weights.startswith("bundled:"):
            return bundled_digest(weights)
        is_given = weights not in ("hub", "random", "pretrain")
        return file_digest(weights) if is_given else None

    return resolve


def content(path_of):
    """Digest of the content of a file that the settings name, None where they name none."""

    def resolve(wildcards):
        path = path_of(wildcards)
        return None if path is None else file_digest(path)

    return resolve


def artifact(stage, path):
    """A file of a stage, in the folder of the experiment that owns it."""

    def resolve(wildcards):
        settings_of(wildcards)
        owner = stage_owner(
            EXPERIMENTS, wildcards.experiment, stage.format(**wildcards)
        )
        return str(Path("results", owner, path)).format(**wildcards)

    return resolve


def owners(wildcards):
    """The experiments whose folders hold the stages of an experiment."""
    settings_of(wildcards)
    return stage_owners(EXPERIMENTS, wildcards.experiment)


def artifact_of_seeds(stage, path):
    """A file of a stage for every seed of the experiment."""

    def resolve(wildcards):
        seeds = settings_of(wildcards)["seeds"]
        owner = stage_owner(EXPERIMENTS, wildcards.experiment, stage)
        return expand(str(Path("results", owner, path)), seed=seeds)

    return resolve


def model(wildcards):
    """What a model is rebuilt from."""
    settings = settings_of(wildcards)
    return {
        "name": settings["backbone"]["name"],
        "options": settings["backbone"]["options"],
        "image_size": settings["data"]["image_size"],
        "n_clusters": settings["n_clusters"],
        "head": settings["finetuning"]["head"],
        "head_norm": settings["finetuning"]["head_norm"],
        "head_width": settings["finetuning"]["head_width"],
    }


def is_frozen(settings):
    """Whether features stay as they are: nothing of the backbone is trained."""
    finetuning = settings["finetuning"]
    return finetuning["trainable"] == "none" and finetuning["head"] != "self_attention"


def view_files(wildcards):
    """What finetuning has of cached views: features of a frozen backbone, or tokens.

    Without augmentation all views of an image are the one that was mined.
    """
    settings = settings_of(wildcards)
    finetuning = settings["finetuning"]
    if is_frozen(settings) and finetuning["augmentation"] == "none":
        features = artifact("extract_features", "features.zarr/zarr.json")
        return {"frozen": features(wildcards)}
    if finetuning["views"] == "fresh" or not is_frozen(settings):
        return token_files(wildcards)
    return {"tokens": artifact("extract_views", "views.json")(wildcards)}


def frozen_features(wildcards):
    """Features that need not be computed again to predict."""
    if not is_frozen(settings_of(wildcards)):
        return {}
    features = artifact("extract_features", "features.zarr/zarr.json")
    return {"features": features(wildcards)}


def token_files(wildcards):
    """Cached views of the images, where the training draws from these."""
    if settings_of(wildcards)["finetuning"]["views"] == "fresh":
        return {}
    return {"tokens": artifact("extract_tokens", "tokens.json")(wildcards)}


def decoded_files(wildcards):
    """Decoded images, where they are read in place of the files."""
    if settings_of(wildcards)["data"]["decoded"] == "none":
        return {}
    return {"decoded": artifact("decode_images", "decoded.json")(wildcards)}


def simgcd_training(wildcards):
    """The settings of SimGCD itself."""
    settings = settings_of(wildcards)
    simgcd = settings["pretraining"]["simgcd"]
    own = {key: simgcd[key] for key in simgcd if key not in ("start", "augmentation")}
    return own | {"precision": settings["finetuning"]["precision"]}


def training(wildcards):
    """The settings of the training itself."""
    elsewhere = (
        *("augmentation", "head", "head_norm", "head_width", "n_heads"),
        *("views", "token_dtype", "snapshot_every"),
    )
    finetuning = settings_of(wildcards)["finetuning"]
    return {key: finetuning[key] for key in finetuning if key not in elsewhere}


def clustered_features(wildcards):
    """What a k-means baseline clusters: one store for all seeds, or one a seed."""
    if wildcards.source == "finetuned":
        return artifact_of_seeds("predict", "seed{seed}/features.zarr/zarr.json")(
            wildcards
        )
    if wildcards.source == "pixels":
        return [artifact("extract_pixels", "pixels.zarr/zarr.json")(wildcards)]
    return [artifact("extract_features", "features.zarr/zarr.json")(wildcards)]


def all_predictions(wildcards):
    """Predictions of every seed and of every baseline of an experiment."""
    sources = ["features"]
    if not is_frozen(settings_of(wildcards)):
        sources.append("finetuned")
    if settings_of(wildcards)["kmeans"]["pixels"]:
        sources.append("pixels")
    own = artifact_of_seeds("predict", "seed{seed}/predictions.parquet")(wildcards)
    baselines = [
        artifact(f"cluster_{source}", f"baselines/kmeans_{source}.parquet")(wildcards)
        for source in sources
    ]
    if pretraining_stage(settings_of(wildcards)) == "pretrain_simgcd":
        baselines.append(
            artifact("predict_simgcd", "baselines/simgcd.parquet")(wildcards)
        )
    if settings_of(wildcards)["gcd"] is not None:
        path = "baselines/semi_supervised_kmeans_features.parquet"
        baselines.append(artifact("cluster_semi_supervised", path)(wildcards))
    return own + baselines


def table(wildcards):
    """A table of the paper, as the configuration has it."""
    tables = config.get("tables", {})
    if wildcards.table not in tables:
        known = ", ".join(tables) or "none"
        raise WorkflowError(f"unknown table {wildcards.table}, known are {known}")
    return tables[wildcards.table]


def experiments_of_table(wildcards):
    """The experiments whose numbers a table holds, each once."""
    rows = table(wildcards)["rows"]
    return list(dict.fromkeys(row["experiment"] for row in rows if "experiment" in row))


def metrics_of_table(wildcards):
    """The metrics of the experiments of a table."""
    experiments = experiments_of_table(wildcards)
    return expand("results/{experiment}/metrics.json", experiment=experiments)


def gpus(wildcards):
    """How many GPUs a heavy job asks for; jobs on the CPU need not wait for one."""
    return 0 if settings_of(wildcards)["machine"]["device"] == "cpu" else 1


def training_gpus(wildcards):
    """How many GPUs the training asks for, one a process."""
    return gpus(wildcards) * settings_of(wildcards)["machine"]["processes"]


def script_digest(script):
    """Digest of a script and all package code it imports: the stage reruns when it changes."""
    return code_digest(SCRIPTS / script)
