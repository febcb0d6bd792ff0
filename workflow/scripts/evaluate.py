"""Score predictions with the true labels."""

import pandas as pd

from unic.data.index import read_index
from unic.evaluation import evaluate, make_truth
from unic.files import read_parquet, write_json
from unic.jobs import job
from unic.store import open_store

with job(snakemake.log[0]):
    truth = make_truth(
        read_index(snakemake.input.images),
        open_store(snakemake.input.labels, kind="labels"),
        open_store(snakemake.input.known_labels, kind="known_labels"),
    )
    predictions = pd.concat(map(read_parquet, snakemake.input.predictions))
    write_json(snakemake.output.scores, evaluate(predictions, truth))
