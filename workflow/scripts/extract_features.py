"""Embed every image of every split (Eq. 1)."""

from unic.backbones import load_backbone
from unic.data.decoded import open_pixels
from unic.data.index import read_index
from unic.data.views import View
from unic.devices import choose_device
from unic.features import extract_features
from unic.jobs import job
from unic.store import write_features

with job(snakemake.log[0], threads=snakemake.threads):
    device = choose_device(snakemake.resources.device)
    ids = read_index(snakemake.input.images)
    view = View(**snakemake.params.view)
    backbone = load_backbone(
        snakemake.params.name,
        weights=snakemake.input.get("backbone", snakemake.params.weights),
        network=snakemake.params.network,
        options=snakemake.params.options,
        image_size=view.image_size,
    )
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
            batch_size=snakemake.resources.batch_size,
            device=device,
            n_workers=snakemake.threads,
        )
        for split in ids
    }
    write_features(snakemake.output.features, features, ids, backbone=snakemake.params.name)
