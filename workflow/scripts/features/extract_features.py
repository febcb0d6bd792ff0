"""Embed every image of every split (Eq. 1), those of a shard, or put the shards together."""

from unic.features.extraction import extract_splits
from unic.features.joining import join_features
from unic.images.index import read_index
from unic.images.source import ImageSource
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
        source = ImageSource.parse(snakemake.params.source, decoded=snakemake.input.get("decoded"))
        backbone = load_backbone(
            snakemake.params.name,
            weights=snakemake.input.get("backbone", snakemake.params.weights),
            network=snakemake.params.network,
            options=snakemake.params.options,
            image_size=source.view.image_size,
        )
        features, held = extract_splits(
            source.open_splits(ids),
            backbone,
            source.view,
            shard=read_shard(snakemake.wildcards),
            batch_size=snakemake.resources.batch_size,
            device=choose_device(snakemake.resources.device),
            n_workers=snakemake.threads,
        )
        target = manifest_of(snakemake.output.features)
        write_features(target, features, held, backbone=snakemake.params.name)
