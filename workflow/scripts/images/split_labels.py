"""Read true labels for evaluation, and keep apart those that training may know."""

from unic.images.datasets import read_labels
from unic.images.index import read_index, read_skipped
from unic.images.readers.known_labels import read_known_labels
from unic.images.splits import split_labels
from unic.runtime.jobs import job
from unic.storage.stores import write_known_labels, write_labels

with job(snakemake.log[0]):
    ids = read_index(snakemake.input.images)
    skipped = [image.image_id for image in read_skipped(snakemake.input.images)]
    annotations = read_labels(
        snakemake.params.name,
        ids,
        root=snakemake.params.root,
        label_file=snakemake.input.get("label_file"),
        manifest=snakemake.input.get("manifest"),
        skipped=skipped,
        class_folders=snakemake.params.class_folders,
    )
    known = read_known_labels(
        snakemake.input.get("known_label_files", []),
        ids["train"],
        root=snakemake.params.root,
        ignored=[*skipped, *ids.get("test", [])],
    )
    split = split_labels(annotations, ids, gcd=snakemake.params.gcd, known=known)
    write_labels(
        snakemake.output.labels, split.labels, split.is_old, ids, class_names=split.class_names
    )
    write_known_labels(
        snakemake.output.known_labels,
        split.known_labels,
        ids["train"],
        class_names=split.known_names,
    )
