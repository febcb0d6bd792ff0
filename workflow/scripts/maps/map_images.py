"""Lay all images out in two dimensions by their neighbors."""

from unic.maps.making import make_map
from unic.runtime.jobs import job
from unic.storage.stores import open_store

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    make_map(features, neighbors, snakemake.output.map)
