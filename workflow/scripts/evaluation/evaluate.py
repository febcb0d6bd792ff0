"""Score predictions with the true labels."""

import pandas as pd

from unic.evaluation.scores import evaluate, make_truth
from unic.images.index import read_index
from unic.runtime.jobs import job
from unic.storage.files import read_parquet, write_json
from unic.storage.stores import open_store

with job(snakemake.log[0]):
    truth = make_truth(
        read_index(snakemake.input.images),
        open_store(snakemake.input.labels, kind="labels"),
        open_store(snakemake.input.known_labels, kind="known_labels"),
    )
    predictions = pd.concat(map(read_parquet, snakemake.input.predictions))
    write_json(snakemake.output.scores, evaluate(predictions, truth))
