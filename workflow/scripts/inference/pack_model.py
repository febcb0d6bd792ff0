"""Pack what new images need of an experiment into one file, and describe it."""

from unic.inference.bundle import write_bundle
from unic.inference.card import describe
from unic.inference.packing import Origin, Stages, pack
from unic.runtime.jobs import job
from unic.storage.files import read_json, write_text

with job(snakemake.log[0], threads=snakemake.threads):
    metrics = read_json(snakemake.input.metrics)
    bundle = pack(metrics, Stages.parse(snakemake.input), Origin.parse(snakemake.params))
    write_bundle(snakemake.output.model, bundle)
    write_text(snakemake.output.card, describe(bundle, metrics, data=snakemake.params.data))
