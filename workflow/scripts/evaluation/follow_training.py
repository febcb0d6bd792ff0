"""Score the snapshots of a training with the true labels, after it has ended (Fig. 6)."""

from unic.evaluation.learning_curve import follow_snapshots
from unic.images.decoded import open_pixels
from unic.images.index import read_index
from unic.images.views import View
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.files import write_csv
from unic.storage.stores import open_store, read_splits

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)
    progress = follow_snapshots(
        f"{snakemake.input.model}.snapshots",
        {
            split: open_pixels(
                snakemake.params.data,
                ids[split],
                root=snakemake.params.root,
                decoded=snakemake.input.get("decoded"),
            )
            for split in ids
        },
        read_splits(open_store(snakemake.input.labels, kind="labels"), "labels"),
        View(**snakemake.params.view),
        n_restarts=snakemake.params.n_restarts,
        seed=int(snakemake.wildcards.seed),
        batch_size=snakemake.resources.batch_size,
        device=choose_device(snakemake.resources.device),
        n_workers=snakemake.threads,
    )
    write_csv(snakemake.output.progress, progress)
