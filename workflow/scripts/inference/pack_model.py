"""Pack what new images need of an experiment into one file, and describe it."""

from unic.images.views import View
from unic.inference.bundle import write_bundle
from unic.inference.card import describe
from unic.inference.packing import pack
from unic.runtime.jobs import job
from unic.storage.files import read_json, write_text

with job(snakemake.log[0]):
    metrics = read_json(snakemake.input.metrics)
    bundle = pack(
        metrics,
        models=snakemake.input.models,
        images=snakemake.input.images,
        view=View(**snakemake.params.view),
        decoded=snakemake.params.decoded,
        name=snakemake.params.name,
        weights=snakemake.params.weights,
        weights_file=snakemake.input.get("backbone"),
        network=snakemake.params.network,
        options=snakemake.params.options,
    )
    write_bundle(snakemake.output.model, bundle)
    write_text(snakemake.output.card, describe(bundle, metrics, data=snakemake.params.data))
