"""Embed every image of every split (Eq. 1), those of a shard, or put the shards together."""

from unic.features.frozen import FrozenBackbone
from unic.features.joining import join_features
from unic.features.scratch import extract_splits
from unic.images.index import read_index
from unic.images.source import ImageSource
from unic.models.backbones import load_backbone
from unic.runtime.devices import choose_device, choose_precision
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
        images = source.open_splits(ids)
        device = choose_device(snakemake.resources.device)
        frozen = FrozenBackbone.choose(
            backbone,
            snakemake.resources.engine,
            n_images=sum(map(len, ids.values())),
            precision=choose_precision(
                snakemake.params.precision, device, is_transformer=backbone.is_transformer
            ),
            device=device,
            only_features=True,
        )
        target = manifest_of(snakemake.output.features)
        with extract_splits(
            images,
            frozen,
            source.view,
            shard=read_shard(snakemake.wildcards),
            batch_size=snakemake.resources.batch_size,
            store=target.parent,
            parameters=dict(snakemake.params.items()),
            n_workers=snakemake.threads,
        ) as (features, held):
            name, engine = snakemake.params.name, frozen.engine.describe()
            write_features(target, features, held, backbone=name, engine=engine)
