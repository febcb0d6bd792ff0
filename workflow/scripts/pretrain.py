"""Train a backbone without labels, where an experiment has none."""

from unic.backbones import load_backbone, save_backbone
from unic.data.datasets import open_images
from unic.data.index import read_index
from unic.data.views import View
from unic.devices import choose_device
from unic.files import write_csv
from unic.jobs import job
from unic.pretraining import PretrainingSettings, pretrain

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)["train"]
    settings = PretrainingSettings(**snakemake.params.pretraining)
    backbone = load_backbone(
        snakemake.params.name,
        weights="random",
        options=snakemake.params.options,
        image_size=snakemake.params.view["image_size"],
        seed=settings.seed,
    )
    history = pretrain(
        backbone,
        open_images(snakemake.params.data, ids, root=snakemake.params.root),
        View(**snakemake.params.view),
        settings,
        device=choose_device(snakemake.resources.device),
        n_workers=snakemake.threads,
    )
    write_csv(snakemake.output.history, history)
    save_backbone(snakemake.output.backbone, backbone)
