"""Embed every image of every split (Eq. 1), those of a shard, or put the shards together."""

from unic.features.extraction import extract_features
from unic.features.joining import join_features
from unic.images.decoded import open_pixels
from unic.images.index import read_index
from unic.images.views import View
from unic.models.backbones import load_backbone
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.runtime.shards import read_shard
from unic.storage.stores import manifest_of, write_features

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)
    if "parts" in dict(snakemake.input.items()):
        join_features(snakemake.output.features, snakemake.input.parts, ids)
    else:
        device = choose_device(snakemake.resources.device)
        view = View(**snakemake.params.view)
        backbone = load_backbone(
            snakemake.params.name,
            weights=snakemake.input.get("backbone", snakemake.params.weights),
            network=snakemake.params.network,
            options=snakemake.params.options,
            image_size=view.image_size,
        )
        batch_size = snakemake.resources.batch_size
        shard = read_shard(snakemake.wildcards)
        rows = {split: shard.rows(len(ids[split]), multiple=batch_size) for split in ids}
        features = {
            split: extract_features(
                open_pixels(
                    snakemake.params.data,
                    ids[split],
                    root=snakemake.params.root,
                    decoded=snakemake.input.get("decoded"),
                ),
                backbone,
                view,
                batch_size=batch_size,
                device=device,
                n_workers=snakemake.threads,
                rows=rows[split],
            )
            for split in ids
        }
        held = {split: ids[split][rows[split].start : rows[split].stop] for split in ids}
        target = manifest_of(snakemake.output.features)
        write_features(target, features, held, backbone=snakemake.params.name)
