"""Score the snapshots of a training with the true labels, after it has ended (Fig. 6)."""

from unic.evaluation.learning_curve import follow_snapshots
from unic.images.index import read_index
from unic.images.source import ImageSource
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.files import write_csv
from unic.storage.stores import open_store, read_splits

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)
    source = ImageSource.parse(snakemake.params.source, decoded=snakemake.input.get("decoded"))
    progress = follow_snapshots(
        f"{snakemake.input.model}.snapshots",
        source.open_splits(ids),
        read_splits(open_store(snakemake.input.labels, kind="labels"), "labels"),
        source.view,
        n_restarts=snakemake.params.n_restarts,
        seed=int(snakemake.wildcards.seed),
        batch_size=snakemake.resources.batch_size,
        device=choose_device(snakemake.resources.device),
        n_workers=snakemake.threads,
        engine=snakemake.resources.engine,
    )
    write_csv(snakemake.output.progress, progress)
