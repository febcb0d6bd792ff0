from snakemake.utils import min_version

from unic.runtime.failures import say_last

min_version("9.9")


configfile: "config/config.yaml"
configfile: "config/experiments/digits.yaml"
configfile: "config/experiments/clustering.yaml"
configfile: "config/experiments/gcd.yaml"
configfile: "config/experiments/ablations.yaml"
configfile: "config/experiments/backbones.yaml"
configfile: "config/experiments/photos.yaml"
configfile: "config/experiments/rivals.yaml"
configfile: "config/tables.yaml"
configfile: "config/figures.yaml"
configfile: "config/comparisons.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/neighbors.smk"
include: "workflow/rules/maps.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/quality.smk"
include: "workflow/rules/recipe.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/inference.smk"


rule demo:
    default_target: True
    input:
        "results/digits/metrics.json",
        "results/digits/map.zarr/zarr.json",
    message:
        "The demo is done: open results/digits/report.html, or run unic explore results/digits"


rule all:
    input:
        expand("results/{experiment}/metrics.json", experiment=EXPERIMENTS),
    message:
        "All experiments of the configuration are done"


onerror:
    say_last((job.name, list(job.log)) for job in workflow.scheduler.failed)
