"""Run the frozen trunk over some views of every image, or of a shard, or join the shards."""

from unic.features.cached_views import extract_tokens, join_tokens
from unic.features.frozen import FrozenBackbone
from unic.images.augmentations import choose_augmentation
from unic.images.index import read_index
from unic.images.loaders import ViewLoader
from unic.images.source import ImageSource
from unic.models.backbones import load_backbone
from unic.runtime.devices import choose_device, choose_precision
from unic.runtime.jobs import job
from unic.runtime.shards import read_shard
from unic.storage.row_files import BLOCK_ROWS

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)["train"]
    if "parts" in dict(snakemake.input.items()):
        join_tokens(snakemake.output.header, snakemake.input.parts, ids)
    else:
        device = choose_device(snakemake.resources.device)
        views = snakemake.params.views
        source = ImageSource.parse(snakemake.params.source, decoded=snakemake.input.get("decoded"))
        backbone = load_backbone(
            snakemake.params.name,
            weights=snakemake.input.get("backbone", snakemake.params.weights),
            network=snakemake.params.network,
            options=snakemake.params.options,
            image_size=source.view.image_size,
            all_tokens=snakemake.params.all_tokens,
            is_frozen=snakemake.params.is_frozen,
        )
        frozen = FrozenBackbone.choose(
            backbone,
            snakemake.resources.engine,
            n_images=views["n_views"] * len(ids),
            precision=choose_precision(
                views["precision"], device, is_transformer=backbone.is_transformer
            ),
            device=device,
        )
        extract_tokens(
            snakemake.output.header,
            ViewLoader(
                source.open(ids),
                source.view,
                augmentation=choose_augmentation(views["augmentation"]),
                n_workers=snakemake.threads,
            ),
            frozen,
            n_views=views["n_views"],
            dtype=views["dtype"],
            batch_size=max(1, snakemake.resources.batch_size // views["n_views"]),
            seed=0,
            parameters=dict(snakemake.params.items()),
            rows=read_shard(snakemake.wildcards).rows(len(ids), multiple=BLOCK_ROWS),
        )
