"""From wildcards to what `unic.experiments.stages` decides, and digests of code and given files."""

from functools import partial
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from unic.experiments import stages
from unic.experiments.keys import setting
from unic.experiments.settings import resolve_experiments
from unic.storage.digests import PACKAGE, bundled_digest, code_digest, file_digest

SCRIPTS = Path(workflow.basedir, "workflow", "scripts")
SCHEMA = Path(workflow.basedir, "workflow", "schemas", "config.schema.yaml")

try:
    EXPERIMENTS = resolve_experiments(config, yaml.safe_load(SCHEMA.read_text()))
except ValueError as error:
    raise WorkflowError(str(error)) from None
COMPARED = "|".join(config.get("comparisons", {})) or "-"


wildcard_constraints:
    experiment="[A-Za-z0-9][A-Za-z0-9_-]*",
    seed="[0-9]+",
    shard="[0-9]+",
    n_shards="[0-9]+",
    source="features|pixels|finetuned",
    method="|".join(stages.METHODS),
    table=rf"(?!(?:{COMPARED})\.)[A-Za-z0-9][A-Za-z0-9_-]*",
    comparison=COMPARED,
    figure="[A-Za-z0-9][A-Za-z0-9_-]*",
    number="12|14|15|16",


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
    return decide(partial(setting, key=key))


def decide(function, *names):
    """What a function of the settings, and of the wildcards of these names, decides.

    Files of stages are in the folders of the experiments that own them.
    """

    def resolve(wildcards):
        further = (getattr(wildcards, name) for name in names)
        decided = function(settings_of(wildcards), *further)
        return stages.place(decided, EXPERIMENTS, wildcards.experiment)

    return resolve


def artifact(stage, path):
    """A file of a stage, in the folder of the experiment that owns it."""

    def resolve(wildcards):
        settings_of(wildcards)
        file = stages.Artifact(stage, path.format(**wildcards))
        return stages.place(file, EXPERIMENTS, wildcards.experiment)

    return resolve


def parts(path, rows=None):
    """What a stage puts together, where several jobs share it out.

    With ``rows`` the parts have a second file each, which is then kept as long.
    """

    def resolve(wildcards):
        settings = settings_of(wildcards)
        if not stages.is_shared_out(settings):
            return {}
        count = settings["shards"]
        shards = dict(shard=range(count), n_shards=count, **wildcards)
        files = {"parts": expand(path, **shards)}
        return files if rows is None else files | {"rows": expand(rows, **shards)}

    return resolve


def content(path_of):
    """Digest of the content of a file that the settings name, None where they name none."""

    def resolve(wildcards):
        path = path_of(wildcards)
        return None if path is None else file_digest(path)

    return resolve


def contents(paths_of):
    """Digests of the contents of files that the settings name."""

    def resolve(wildcards):
        return [file_digest(path) for path in paths_of(wildcards)]

    return resolve


def weights_digest(weights_of):
    """Digest of the content of given weights: a file, or one that comes with the package."""

    def resolve(wildcards):
        weights = weights_of(wildcards)
        if stages.is_bundled(weights):
            return bundled_digest(weights)
        return file_digest(weights) if stages.is_file(weights) else None

    return resolve


def owners(wildcards):
    """The experiments whose folders hold the stages of an experiment."""
    settings_of(wildcards)
    return stages.stage_owners(EXPERIMENTS, wildcards.experiment)


def table(wildcards):
    """A table of the paper, as the configuration has it."""
    tables = config.get("tables", {})
    if wildcards.table not in tables:
        known = ", ".join(tables) or "none"
        raise WorkflowError(f"unknown table {wildcards.table}, known are {known}")
    return tables[wildcards.table]


def comparison(wildcards):
    """A comparison of methods, as the configuration has it."""
    return config["comparisons"][wildcards.comparison]


def experiments_of_comparison(wildcards):
    """The experiments that a comparison takes scores from, each once."""
    return list(dict.fromkeys(comparison(wildcards)["experiments"].values()))


def times_of_comparison(wildcards):
    """What the methods took on the experiments of a comparison: a list of files for each."""
    return {
        f"times_{name}": stages.place(
            stages.method_times(EXPERIMENTS[name]), EXPERIMENTS, name
        )
        for name in experiments_of_comparison(wildcards)
    }


def figure(wildcards):
    """A figure of several experiments, as the configuration has it."""
    figures = config.get("figures", {})
    if wildcards.figure not in figures:
        known = ", ".join(figures) or "none"
        raise WorkflowError(f"unknown figure {wildcards.figure}, known are {known}")
    return figures[wildcards.figure]


def experiments_of_figure(wildcards):
    """The experiments that a figure draws, each once."""
    return stages.experiments_of_figure(figure(wildcards))


def scores_of_figure(wildcards):
    """The scores of each experiment of a figure, or those of its snapshots."""
    names = experiments_of_figure(wildcards)
    if figure(wildcards)["x"] != "epoch":
        return {f"metrics_{name}": f"results/{name}/metrics.json" for name in names}
    try:
        return {
            f"progress_{name}": stages.progress_files(EXPERIMENTS[name], name)
            for name in names
        }
    except ValueError as error:
        raise WorkflowError(f"figure {wildcards.figure}: {error}") from None


def settings_of_figure(wildcards):
    """The value of each experiment of a figure, where it is drawn over a setting."""
    key, names = figure(wildcards)["x"], experiments_of_figure(wildcards)
    if "." not in key:
        return {}
    try:
        return {name: setting(EXPERIMENTS[name], key) for name in names}
    except ValueError as error:
        raise WorkflowError(f"figure {wildcards.figure}: {error}") from None


def clusters_for_classes(wildcards):
    """The clusters that are shown, where images may have no true labels."""
    if stages.has_labels(settings_of(wildcards)):
        return {}
    return {
        "metrics": f"results/{wildcards.experiment}/metrics.json",
        "predictions": decide(stages.predictions)(wildcards),
    }


def figures_of_paper(wildcards):
    """The figures of the paper that an experiment has, as images."""
    return expand(
        "results/{experiment}/paper_figures/figure{number}.png",
        experiment=wildcards.experiment,
        number=decide(stages.paper_figures)(wildcards),
    )


def experiments_of_table(wildcards):
    """The experiments whose numbers a table holds."""
    return stages.experiments_of_table(table(wildcards))


def metrics_of(experiments_of):
    """The metrics of the experiments of a table, or of a comparison."""

    def resolve(wildcards):
        experiments = experiments_of(wildcards)
        return expand("results/{experiment}/metrics.json", experiment=experiments)

    return resolve


def script_digest(script):
    """Digest of a script and all package code it imports: the stage reruns when it changes."""
    return code_digest(SCRIPTS / script)


def method_digest(script):
    """Digest of a script, of the method's module, and of all package code that they import."""

    def resolve(wildcards):
        return code_digest(SCRIPTS / script, PACKAGE / stages.METHODS[wildcards.method])

    return resolve
